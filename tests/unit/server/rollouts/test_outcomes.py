"""What counts as healthy, failed, lost, and what as none of them."""

from dataclasses import replace

import pytest

from shoal_protocol.mqtt.messages import Fault, SlotReport
from shoal_server.rollouts.outcomes import DeviceFact, Outcome, count, outcome
from shoal_server.rollouts.rollout import Member
from shoal_server.testing.rollout_world import NEW, OLD

NOW = 1000.0
OFFERED = Member(device="a", stage=0, offered_at=900.0, generation=7, attempt=1)
TOOK = DeviceFact(online=True, last_seen_at=NOW, generation_reported=7)


def _report(state: str = "idle", **fields: object) -> SlotReport:
    return SlotReport(**{"state": state, "active": OLD, "proven": OLD, "target": NEW, "attempt": 1, **fields})


def _outcome(member: Member = OFFERED, **fields: object) -> Outcome:
    return outcome(member, replace(TOOK, **fields), digest=NEW, lost_after_s=60.0, now=NOW)


def test_healthy_is_active_and_proven_not_installed() -> None:
    assert _outcome(report=_report(active=NEW, proven=NEW)) is Outcome.HEALTHY
    assert _outcome(report=_report("trial", active=NEW)) is Outcome.WORKING
    assert _outcome(report=_report("downloading")) is Outcome.WORKING


def test_failed_is_what_the_device_says_of_this_attempt() -> None:
    fault = Fault(code="golden_rows", message="differs", digest=NEW)
    assert _outcome(report=_report(error=fault)) is Outcome.FAILED
    assert _outcome(report=_report("rejected")) is Outcome.FAILED
    assert _outcome(report=_report(error=fault, attempt=0)) is Outcome.WORKING
    assert _outcome(report=_report(error=Fault(code="x", message="", digest=OLD))) is Outcome.WORKING


def test_a_later_local_rollback_takes_it_out_again() -> None:
    proven = replace(OFFERED, proven_at=950.0)
    assert _outcome(proven, report=_report(active=OLD)) is Outcome.FAILED


def test_silence_after_the_offer_was_taken_is_lost() -> None:
    silent = {"online": False, "last_seen_at": 930.0}
    assert _outcome(report=_report("downloading"), **silent) is Outcome.LOST
    assert _outcome(report=_report(active=NEW, proven=NEW), **silent) is Outcome.LOST
    assert _outcome(report=_report(active=NEW, proven=NEW), online=False, last_seen_at=950.0) is Outcome.HEALTHY


def test_offline_before_the_offer_is_no_failure() -> None:
    waiting = Member(device="a", stage=0)
    assert _outcome(waiting, online=False, last_seen_at=1.0) is Outcome.WAITING
    assert _outcome(waiting) is Outcome.QUEUED


def test_silence_without_having_taken_the_offer_is_neither_lost_nor_failed() -> None:
    assert _outcome(online=False, last_seen_at=890.0, generation_reported=6) is Outcome.UNREACHED
    assert (
        _outcome(generation_reported=6, report=_report(error=Fault(code="x", message="", digest=NEW)))
        is Outcome.WORKING
    )


def test_who_is_not_accepted_weighs_nothing() -> None:
    assert _outcome(accepted=False, report=_report(active=NEW, proven=NEW)) is Outcome.EXCLUDED
    assert outcome(OFFERED, None, digest=NEW, lost_after_s=60, now=NOW) is Outcome.EXCLUDED
    assert _outcome(Member(device="a", stage=0), eligible=False) is Outcome.EXCLUDED
    assert _outcome(eligible=False, report=_report(active=NEW, proven=NEW)) is Outcome.HEALTHY


def test_the_denominators_add_up() -> None:
    counts = count([*Outcome, Outcome.HEALTHY])
    assert counts.reported == counts.healthy + counts.failed + counts.lost == 4
    assert counts.offered == 6
    assert counts.eligible == 8
    assert counts.out_of_reach == 2


@pytest.mark.parametrize("one", sorted(Outcome))
def test_an_excluded_device_is_in_no_denominator(one: Outcome) -> None:
    assert count([one, Outcome.EXCLUDED]) == count([one])
