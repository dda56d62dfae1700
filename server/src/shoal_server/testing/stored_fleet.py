"""Simulated devices that live in a database: they take what is assigned there, and report there what they run."""

from __future__ import annotations

from collections.abc import Mapping

from shoal_server.fleet import assignments, intake
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow
from shoal_server.registry.tables import ModelVersion
from shoal_server.registry.versions import VersionState
from shoal_server.storage.database import Clock, Database
from shoal_server.testing.simulated_devices import SimulatedDevice


class StoredFleet:
    """Devices and the rows about them.

    Args:
        database: Empty of these devices.
        devices: By id; they are accepted at once.
        clock: Of the server.
        slot: The one slot of each.
        labels: By device.
    """

    def __init__(
        self,
        database: Database,
        devices: dict[str, SimulatedDevice],
        *,
        clock: Clock,
        slot: str = "quality",
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.devices: dict[str, SimulatedDevice] = {}
        self._database = database
        self._clock = clock
        self._slot = slot
        self._told: dict[str, tuple[object, bool]] = {}
        for device in devices.values():
            self.join(device, (labels or {}).get(device.id, {}))
        self.exchange()

    def join(self, device: SimulatedDevice, labels: Mapping[str, str] | None = None) -> None:
        """Let a device in, without the ceremony of enrolment."""
        self.devices[device.id] = device
        with self._database.write() as session:
            session.add(
                DeviceRow(
                    id=device.id,
                    state=DeviceState.ACCEPTED,
                    labels=dict(labels or {}),
                    facts={"arch": "arm64"},
                    public_key="",
                    verifier="",
                    token_id="",
                    enrolled_at=self._clock(),
                )
            )

    def exchange(self) -> None:
        """Let every device take its assignment, come one step further, and report what is new."""
        with self._database.read() as session:
            wanted = assignments.slot_targets(session, self._slot)
            generations = assignments.generations(session)
        for name, device in self.devices.items():
            device.advance()
            if name in wanted:
                device.assigned(generations[name], wanted[name])
        self._report()

    def running(self, digest: str | None) -> set[str]:
        """Return the devices that run a bundle."""
        return {name for name, device in self.devices.items() if device.active == digest}

    def _report(self) -> None:
        news = {
            name: device
            for name, device in self.devices.items()
            if self._told.get(name) != (_heard(device), device.online)
        }
        if not news:
            return
        with self._database.write() as session:
            for name, device in news.items():
                self._told[name] = (_heard(device), device.online)
                intake.on_presence(session, name, device.presence(), self._clock())
                if device.online:
                    intake.on_reported(session, name, device.reported(self._slot), self._clock())


def _heard(device: SimulatedDevice) -> tuple[object, ...]:
    return device.generation, device.report()


def add_version(database: Database, *, model: str, version: str, digest: str, counter: int) -> None:
    """Put a version into the registry, without a bundle behind it."""
    with database.write() as session:
        session.add(
            ModelVersion(
                model=model,
                version=version,
                digest=digest,
                counter=counter,
                state=VersionState.RELEASED,
                task="classification",
                framework="sklearn",
                size=1,
                variants=[],
                created_at=0.0,
                created_by="tests",
            )
        )
