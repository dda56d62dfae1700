"""Bundles that the signed list takes back: they run on and are reported, and nothing goes back to them."""

from __future__ import annotations

from types import SimpleNamespace

from shoal_agent.domain.slot import SlotState
from shoal_agent.errors import NoModelError
from shoal_agent.testing import FakeClock, FakeTrust
from shoal_agent.updating.list_watch import ListWatch
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.requests import RollBackRequest
from shoal_agent.updating.updater import Inbox, Updater
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import TrustError
from shoal_protocol.mqtt.messages import Event, Reported, parse_message
from shoal_protocol.mqtt.topics import Up

A = sha256_digest(b"a")


def prove(device, digest: str) -> None:
    device.want(digest)
    device.turn(61)
    assert device.slot.proven == digest


def test_a_look_is_due_after_the_start_then_seldom_and_when_something_came():
    clock, trust = FakeClock(), FakeTrust()
    watch = ListWatch(trust, monotonic=clock, every_s=600.0)
    allowed = trust.allow("q", "1", b"raw")
    assert watch.look([allowed]) is None
    clock.move(60)
    assert watch.look([allowed, A]) == {A: "the signed list of version 2 does not name it any more"}
    assert watch.look([allowed]) is None
    watch.look_soon()
    assert watch.look([allowed]) == {}
    assert watch.look([]) is None


def test_without_network_the_newest_list_that_was_verified_speaks_even_expired():
    clock, trust = FakeClock(), FakeTrust()
    watch = ListWatch(trust, monotonic=clock, every_s=600.0)
    trust.online, trust.expired = False, True
    watch.look_soon()
    assert set(watch.look([A]) or {}) == {A}


def test_what_is_known_without_network_needs_no_turn_and_may_be_nothing():
    trust = FakeTrust()
    watch = ListWatch(trust, monotonic=FakeClock(), every_s=600.0)
    trust.online = False
    assert watch.known([A]) == {A: "the signed list of version 1 does not name it any more"}

    def damaged():
        raise TrustError("the cache is damaged")

    trust.newest = damaged
    assert watch.known([A]) is None


def test_nobody_at_the_device_goes_back_to_what_the_list_bars_as_it_is_known_here(device):
    old, new = device.bundle("1.0"), device.bundle("2.0")
    prove(device, old)
    prove(device, new)
    device.trust.deny, device.trust.online = frozenset({old}), False
    watch = ListWatch(device.trust, monotonic=device.clock, every_s=600.0)  # not due: the start was just now
    updater = Updater(
        device.all,
        intake=None,
        inbox=Inbox(),
        spool=device.spool,
        messages=Messages(epoch=device.spool.epoch, boot=1, clock=device.clock),
        desk=SimpleNamespace(requests=list, show=lambda: None),
        tick_s=1.0,
        monotonic=device.clock,
        watch=watch,
    )
    request = RollBackRequest(slot="s", reason="no")
    updater._inbox.put_request(request)
    updater.turn()
    assert isinstance(request.error, NoModelError)
    assert "no previous model to go back to" in str(request.error)
    assert f"{old[:19]}… is barred" in str(request.error)
    assert (device.slot.active, device.slot.previous) == (new, None)


def test_a_revoked_bundle_that_runs_runs_on_and_is_reported(device):
    digest = device.bundle("1.0")
    prove(device, digest)
    device.all.bar({digest: "taken off the list"})
    device.all.bar({digest: "taken off the list"})  # told once
    assert (device.slot.active, device.slot.state) == (digest, SlotState.IDLE)
    assert device.events().count("revoked") == 1
    told = [parse_message(item.kind, item.body) for item in device.spool.items.values() if item.kind is Up.EVENT]
    assert isinstance(told[-1], Event)
    assert told[-1].data["message"] == "taken off the list"
    assert device.all.revoked == {digest: "taken off the list"}


def test_nothing_goes_back_to_a_revoked_bundle(device):
    old, new = device.bundle("1.0"), device.bundle("2.0")
    prove(device, old)
    prove(device, new)
    assert device.slot.previous == old
    device.all.bar({old: "revoked"})
    assert (device.slot.active, device.slot.previous, device.slot.fallback) == (new, None, None)
    assert device.saved.previous is None
    device.restart()
    assert device.slot.active == new


def test_a_revoked_bundle_is_not_installed_again(device):
    old, new = device.bundle("1.0"), device.bundle("2.0")
    prove(device, old)
    prove(device, new)
    del device.trust.releases[old]
    device.want(old)
    assert (device.slot.active, device.slot.fault.code) == (new, "unsigned")


def test_an_expired_list_bars_new_bundles_and_not_the_way_back_to_a_stored_one(device):
    old, new, unknown = (device.bundle(version) for version in ("1.0", "2.0", "3.0"))
    prove(device, old)
    prove(device, new)
    device.trust.expired = True
    device.want(unknown)
    assert device.slot.state is SlotState.ASSIGNED
    assert "expired" in device.all.troubles["s"].message
    device.want(old)
    assert device.slot.active == old
    device.trust.deny = frozenset({new})
    device.want(new)
    assert (device.slot.active, device.slot.fault.code) == (old, "denied")


def test_the_report_says_why(device):
    from shoal_agent.updating.messages import Messages

    digest = device.bundle("1.0")
    prove(device, digest)
    messages = Messages(epoch=device.spool.epoch, boot=1, clock=device.clock)
    raw = messages.reported(device.all.state, progress={}, variants={}, revoked={digest: "because"})
    report = parse_message(Up.REPORTED, raw)
    assert isinstance(report, Reported)
    assert report.slots["s"].revoked == "because"
