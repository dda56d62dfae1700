"""The examination: which checks are made, in which order, and what is left out when something before it failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shoal_agent.adapters.identity import FolderLock, Identity, IdentityFolder
from shoal_agent.doctor import broker, machine, network, state, updates
from shoal_agent.doctor.findings import Finding, State, note, ok, skipped, wrong
from shoal_agent.errors import DamagedFileError, NotEnrolledError, SettingsError, StateFolderError
from shoal_agent.ports import Clock
from shoal_agent.settings import Settings, load_settings, misspelt_variables
from shoal_agent.status import stored_status
from shoal_protocol.errors import ShoalError, TrustError


@dataclass(frozen=True)
class Chart:
    """What is examined, and how far.

    Attributes:
        folder: The state folder.
        config: The configuration file; none: as for `run`.
        offline: Nothing that needs the network.
        take_over: Log in at the broker although an agent runs here, whose connection that ends for a moment.
        clock: Seconds UTC.
    """

    folder: Path
    config: Path | None = None
    offline: bool = False
    take_over: bool = False
    clock: Clock = time.time


def examine(chart: Chart) -> list[Finding]:
    """Make all checks; what goes wrong in one is its finding and does not end the others."""
    found = [machine.architecture(), *_settings(chart), machine.runtime()]
    if not chart.folder.is_dir():
        advice = "name it by --state or SHOAL_STATE; `shoal-agent join` makes it"
        return [*found, wrong("state_folder", f"there is no folder {chart.folder}", advice)]
    found += machine.disk(chart.folder)
    try:
        identity = IdentityFolder(chart.folder / "identity").load()
    except (NotEnrolledError, DamagedFileError, StateFolderError) as error:
        return [*found, wrong("identity", error.message, error.hint)]
    found += [ok("identity", f"{identity.device} at {identity.url}"), state.rights(chart.folder)]
    found += _stored(chart, identity)
    return found + _line(chart, identity)


def _settings(chart: Chart) -> list[Finding]:
    try:
        settings = load_settings(state=chart.folder, config=chart.config)
    except SettingsError as error:
        return [wrong("configuration", error.message, error.hint), machine.processors(None)]
    runs = FolderLock(chart.folder).held_by_other()
    listen = settings.listen
    with suppress(ShoalError):  # of the identity, which another check tells
        listen = (stored_status(chart.folder)["listen"] if runs else None) or listen  # a flag of `run` counts more
    interface = machine.local_interface(listen, runs=runs)
    checks = [machine.processors(settings.threads), interface, *updates.hooks(settings)]
    checks += updates.leave(chart.folder, settings, chart.clock)
    misspelt = [f"{wrong} is no setting's; is {meant} meant?" for wrong, meant in misspelt_variables().items()]
    if misspelt:
        advice = "correct the environment: what is misspelt has no effect"
        return [note("configuration", "; ".join(misspelt), advice), *checks]
    return [ok("configuration", "every setting is known and well-formed"), *checks]


def _stored(chart: Chart, identity: Identity) -> list[Finding]:
    checks: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("integrity", lambda: [state.integrity(chart.folder)]),
        ("spool", lambda: state.spool_and_slots(chart.folder)),
        ("signed_list", lambda: [state.signed_list(chart.folder, identity, chart.clock)]),
    )
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += check()
        except (OSError, ShoalError) as error:
            found.append(wrong(name, str(error), "is this the agent's user, and is the disk whole?"))
    return found


def _line(chart: Chart, identity: Identity) -> list[Finding]:
    """Check the way to the server, then the broker."""
    floor_ms = _floor_ms(chart, identity)
    if chart.offline:
        return [
            network.clock(chart.clock(), server_s=None, floor_ms=floor_ms),
            skipped("network", "by --offline"),
        ]
    ca_file = IdentityFolder(chart.folder / "identity").ca_file
    found = network.road("server", identity.url, ca_file=ca_file)
    told_s = None
    if _passable(found):
        login, told_s = network.login(identity, ca_file=ca_file)
        found.append(login)
    else:
        found.append(skipped("http_login", "without a way to the server"))
    found.insert(0, network.clock(chart.clock(), server_s=told_s, floor_ms=floor_ms))
    found += [network.mirror(url, ca_file=ca_file) for url in _known_settings(chart).download_mirrors]
    return found + _broker(chart, identity, ca_file)


def _known_settings(chart: Chart) -> Settings:
    """Return the settings; the defaults where these don't parse, which another check tells."""
    try:
        return load_settings(state=chart.folder, config=chart.config)
    except SettingsError:
        return Settings()


def _broker(chart: Chart, identity: Identity, ca_file: Path | None) -> list[Finding]:
    if identity.mqtt_url is None:
        return broker.broker(identity, ca_file=ca_file)
    settings = _known_settings(chart)
    if settings.tls_broker_ca:
        ca_file = Path(settings.tls_broker_ca)
    found = network.road("broker", identity.mqtt_url, ca_file=ca_file)
    if not _passable(found):
        return found + [skipped(check, "without a way to the broker") for check in broker.CHECKS]
    if FolderLock(chart.folder).held_by_other() and not chart.take_over:
        told = f"an agent runs here, {_link(chart)}; a login of the doctor would end its connection for a moment"
        return [*found, note("broker_login", told, "check it all the same by --take-over, or stop the agent first")]
    return found + broker.broker(identity, ca_file=ca_file, client=settings.client_certificate)


def _link(chart: Chart) -> str:
    """Say how the running agent is connected."""
    link = stored_status(chart.folder)["link"]
    way = f"connected by {link['protocol']}" if link["protocol"] else "not connected"
    return f"{way} ({link['fault']['code']}: {link['fault']['message']})" if link["fault"] else way


def _passable(found: list[Finding]) -> bool:
    return all(finding.state in {State.OK, State.NOTE} for finding in found)


def _floor_ms(chart: Chart, identity: Identity) -> int:
    from shoal_agent.adapters.trust_store import TrustStore  # noqa: PLC0415 - only here

    try:
        trust = TrustStore(chart.folder / "trust", http=None, root_digest=identity.root_digest, clock=chart.clock)
        return trust.floors().time_ms
    except (TrustError, OSError):
        return 0
