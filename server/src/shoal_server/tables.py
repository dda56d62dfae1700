"""Every table of the server, imported for its effect on `SQLModel.metadata`.

Migrations and their test need them all; nothing else should import this module.
"""

from importlib import import_module

for _module in (
    "storage.database",  # names of constraints, before any table
    "access.audit",
    "access.tables",
    "alerts.tables",
    "contracts.tables",
    "drift.tables",
    "fleet.tables",
    "quality.tables",
    "outbox.tables",
    "registry.tables",
    "rollouts.tables",
    "telemetry.tables",
):
    import_module(f"shoal_server.{_module}")
