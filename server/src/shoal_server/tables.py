"""Every table of the server, imported for its effect on `SQLModel.metadata`.

Migrations and their test need them all; nothing else should import this module.
"""

import shoal_server.access.audit
import shoal_server.access.tables
import shoal_server.fleet.tables
import shoal_server.registry.tables
import shoal_server.storage.database  # noqa: F401 - names of constraints, before any table
