"""Which bundles devices and rollouts need, and which ones a device may fetch."""

import pytest
from sqlmodel import Session

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.bootstrap import registry_needs
from shoal_server.fleet import assignments
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.needs import assigned_digests, device_needs
from shoal_server.fleet.tables import DeviceRow
from shoal_server.rollouts.machine import RolloutState
from shoal_server.rollouts.needs import offered_digests, rollout_needs
from shoal_server.rollouts.tables import MemberRow, RolloutRow
from shoal_server.storage.database import Database


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


def _device(session: Session, name: str, *, state: DeviceState = DeviceState.ACCEPTED) -> None:
    report = {"active": 1, "previous": 2, "proven": 1, "fallback": 3, "target": 4}
    said = {"state": "idle", **{key: _digest(number) for key, number in report.items()}}
    said["shadow"] = {"digest": _digest(5), "state": "running"}
    session.add(
        DeviceRow(
            id=name, state=state, public_key="", verifier="", token_id="", enrolled_at=0.0, reported={"quality": said}
        )
    )


def _rollout(session: Session, name: str, digest: int, state: RolloutState, **members: int | None) -> None:
    row = RolloutRow(
        name=name,
        slot="quality",
        state=state,
        digest=_digest(digest),
        bundle_name="quality:1",
        salt="",
        reason="",
        plan={},
        stages=[],
        created_at=0.0,
        created_by="",
    )
    session.add(row)
    session.flush()
    for device, previous in members.items():
        way_back = None if previous is None else _digest(previous)
        session.add(MemberRow(rollout=name, device=device, stage=0, stratum="", previous=way_back))


def test_a_device_needs_all_that_it_runs_keeps_and_should_run(database: Database) -> None:
    with database.write() as session:
        _device(session, "cam")
        _device(session, "gone", state=DeviceState.REVOKED)
        target = SlotTarget(digest=_digest(6), shadow=_digest(7))
        assignments.assign(session, "cam", "quality", target, now=0.0)
    with database.read() as session:
        needs = {(need.digest, need.who) for need in device_needs(session)}
        assert assigned_digests(session, "cam") == {_digest(6), _digest(7)}  # never what it only says
        assert assigned_digests(session, "gone") == set()
    kinds = ["active", "previous", "fallback", "target", "shadow", "desired", "shadow"]
    expected = {(_digest(number), f"device cam ({kind})") for number, kind in enumerate(kinds, 1)}
    assert needs == expected | {(_digest(1), "device cam (proven)")}


@pytest.mark.parametrize("state", list(RolloutState))
def test_a_rollout_needs_its_bundle_and_the_ways_back_until_it_is_over(database: Database, state: RolloutState) -> None:
    with database.write() as session:
        _rollout(session, "winter", 1, state, cam=2, new=None)
    with database.read() as session:
        found = {need.digest for need in rollout_needs(session)}
        everything = {need.digest for need in registry_needs()(session)}
        assert offered_digests(session, "cam") == {_digest(1)}  # the way back only once it is assigned
        assert offered_digests(session, "other") == set()
    over = state in {RolloutState.ROLLED_BACK, RolloutState.CANCELLED}
    assert found == everything == (set() if over else {_digest(1), _digest(2)})
