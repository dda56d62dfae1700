"""What a span of time's windows say about the contracts of the bundles that ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import ShoalError
from shoal_server.contracts.served import served_rules
from shoal_server.contracts.sums import RuleState, rule_states
from shoal_server.fleet import store as fleet
from shoal_server.fleet.devices import DeviceState
from shoal_server.telemetry.store import bundles_since, windows


@dataclass(frozen=True)
class BundleState:
    """How a bundle's rules fared in a slot."""

    slot: str
    digest: str
    rules: tuple[RuleState, ...]


def gather(
    session: Session,
    schemas: Callable[[str], ModelSchema],
    *,
    start_ms: int,
    end_ms: int,
    slot: str | None = None,
    device: str | None = None,
) -> list[BundleState]:
    """Return each bundle with a contract that sent windows in [start_ms, end_ms); only accepted devices count.

    Args:
        session: Of `Database.read()`.
        schemas: Bundle digest -> its schema.
        start_ms: Milliseconds since the epoch.
        end_ms: Milliseconds since the epoch.
        slot: Only this one.
        device: Only its rows, and the bundles that it ran.
    """
    found = [
        (name, digest, own, beside)
        for name, digest in bundles_since(session, start_ms)
        if slot in {None, name} and any((own := _rules(schemas, digest), beside := served_rules(session, digest)))
    ]
    if not found:
        return []
    asked = None if device is None else [device]
    counted = {one.id for one in fleet.devices(session, ids=asked) if one.state is DeviceState.ACCEPTED}
    states = []
    for name, digest, own, beside in found:
        sent = windows(session, slot=name, start_ms=start_ms, end_ms=end_ms, digests=[digest], devices=counted)
        if device is not None and not sent:
            continue
        sums = rule_states(own, ((w.device, w.message) for w in sent), beside=beside)
        states.append(BundleState(name, digest, tuple(sums)))
    return states


def _rules(schemas: Callable[[str], ModelSchema], digest: str) -> tuple[Rule, ...]:
    try:
        return schemas(digest).contract
    except ShoalError:  # a device may claim to run anything
        return ()
