"""The single values of this program that Prometheus sees, besides requests and loops.

Owns their names and how each is read: from the services, or by one query. `deploy/prometheus/alerts.yml` rests on these
names, and a test holds the two together.
"""

from collections.abc import Callable, Sequence

from sqlmodel import Session, col, func, select

from shoal_protocol.trust.roots import TrustMode
from shoal_server.alerts.rules import AlertState
from shoal_server.alerts.tables import Alert
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow
from shoal_server.outbox.tables import WebhookRow
from shoal_server.registry.quota import registry_bytes
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.tables import RolloutRow
from shoal_server.services import Services
from shoal_server.telemetry.tables import WindowRow
from shoal_server.webhooks.queue import waiting

Gauge = tuple[str, str, Callable[[], float]]
"""Name, help, how it is read."""


def gauges(program: Services) -> Sequence[Gauge]:
    """Return what is read of one program at every scrape."""

    def counted(query: Callable[[Session], float]) -> Callable[[], float]:
        def read() -> float:
            with program.database.read() as session:
                return query(session)

        return read

    return (
        ("shoal_link_connected", "1 while messages from devices flow", lambda: program.link.connected),
        (
            "shoal_signed_list_expires_timestamp_seconds",
            "When devices stop believing the signed list",
            lambda: program.trust.expiries()["targets"],
        ),
        (
            "shoal_trust_root_expires_timestamp_seconds",
            "When devices stop believing the root of trust",
            lambda: program.trust.expiries()["root"],
        ),
        (
            "shoal_trust_development",
            "1 while this server holds every signing key",
            lambda: program.trust.mode is TrustMode.DEVELOPMENT,
        ),
        ("shoal_drift_alerts_open", "Alerts of drift that nobody has acknowledged", counted(_open_drift)),
        ("shoal_rollouts_paused", "Rollouts that wait for a person", counted(_rollouts(RolloutState.PAUSED))),
        (
            "shoal_rollouts_rolling_back",
            "Rollouts on their way back",
            counted(_rollouts(RolloutState.ROLLING_BACK)),
        ),
        ("shoal_devices_accepted", "Devices of the fleet", counted(_accepted)),
        (
            "shoal_last_window_timestamp_seconds",
            "When the newest window of statistics was received, 0 before the first",
            counted(_last_window),
        ),
        ("shoal_webhook_deliveries_waiting", "Events that wait to be sent to webhooks", counted(waiting)),
        ("shoal_webhooks_disabled", "Webhooks that the server disabled by itself", counted(_disabled_webhooks)),
        ("shoal_registry_bytes", "Bytes of all blobs that models refer to", counted(registry_bytes)),
        (
            "shoal_registry_quota_bytes",
            "Bytes that all models together may hold, 0: no limit",
            lambda: program.settings.registry_quota or 0,
        ),
    )


def _open_drift(session: Session) -> float:
    query = select(func.count()).select_from(Alert).where(Alert.kind == "drift", Alert.state == AlertState.OPEN)
    return session.exec(query).one()


def _rollouts(state: RolloutState) -> Callable[[Session], float]:
    query = select(func.count()).select_from(RolloutRow).where(RolloutRow.state == state)
    return lambda session: session.exec(query).one()


def _disabled_webhooks(session: Session) -> float:
    disabled = (~col(WebhookRow.enabled), WebhookRow.disabled_reason != "")
    return session.exec(select(func.count()).select_from(WebhookRow).where(*disabled)).one()


def _accepted(session: Session) -> float:
    query = select(func.count()).select_from(DeviceRow).where(DeviceRow.state == DeviceState.ACCEPTED)
    return session.exec(query).one()


def _last_window(session: Session) -> float:
    newest = select(WindowRow.received_at).order_by(col(WindowRow.id).desc()).limit(1)  # by key: quick, however many
    return session.exec(newest).first() or 0.0
