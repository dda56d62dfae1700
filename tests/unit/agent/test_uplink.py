"""What is told to the server, and when, over a fake link."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotFault, Target
from shoal_agent.errors import SpoolError
from shoal_agent.testing import FakeClock, FakeLink, MemorySpool
from shoal_agent.updating.messages import Messages, slot_report
from shoal_agent.updating.uplink import Situation, Uplink
from shoal_agent.updating.window_spool import WindowSpool
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import Ack, encode_message, parse_message
from shoal_protocol.mqtt.topics import Down, Up
from shoal_protocol.profile.profile import Profile

A = "sha256:" + "a" * 64


class Told:
    """An uplink over fakes."""

    def __init__(self, *, budget_bytes: int = 1 << 20) -> None:
        self.clock = FakeClock()
        self.link = FakeLink()
        self.spool = MemorySpool(budget_bytes=budget_bytes)
        self.messages = Messages(epoch=self.spool.epoch, boot=1, clock=self.clock)
        self.state = DeviceState(3, "h", {"q": Slot(active=A, proven=A, target=Target(A, attempt=2))})
        self.documents: list[bytes] = []
        self.sink = WindowSpool(self.spool, self.messages, stored=lambda: None)
        self.uplink = Uplink(
            self.link,
            spool=self.spool,
            messages=self.messages,
            situation=Situation(
                lambda: {"agent_version": "1"}, lambda: self.state, lambda: {"q": 0.5}, lambda: {"q": "m"}
            ),
            windows=SimpleNamespace(tick=lambda: 0, due_in_s=lambda: 9.0, close_all=lambda: 0),
            monotonic=self.clock,
            resend_s=10.0,
        )
        self.uplink.start_link(self.documents.append)

    def turn(self, seconds: float = 0.0) -> list[tuple[Up, object]]:
        """Let time pass, take a turn, and return what was sent in it."""
        self.clock.move(seconds)
        self.link.sent.clear()
        self.uplink.turn()
        return [(kind, parse_message(kind, raw)) for kind, raw in self.link.sent]

    def window(self) -> None:
        profile = Profile("0" * 16, 4, np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
        self.sink.append(
            SimpleNamespace(
                slot="q",
                digest=A,
                spec_hash="0" * 16,
                start_ms=1,
                length_ms=2,
                n=4,
                errors=0,
                latency=(),
                resources={"cpu_s": 0.5},
                profile=profile,
                shadows=(),
                violations=(),
                rules="",
                variant="",
            )
        )

    def ack(self, **fields) -> None:
        self.link.handlers.on_message(Down.ACK, encode_message(Ack(epoch=self.spool.epoch, **fields)))


@pytest.fixture
def told():
    return Told()


def test_nothing_is_said_before_the_link_is_up(told):
    told.window()
    assert told.turn() == []


def test_a_birth_that_can_not_be_made_does_not_keep_the_report_back(told):
    told.uplink._situation = msgspec.structs.replace(
        told.uplink._situation, facts=lambda: {"agent_version": "1", "labels": {"a": "x" * 70_000}}
    )
    told.link.connect()
    with pytest.raises(ContentError, match="limit"):
        told.turn()
    assert [kind for kind, _ in told.turn()] == [Up.REPORTED]


def test_a_connect_is_answered_with_birth_reported_and_all_that_waits(told):
    told.window()
    told.link.connect()
    sent = told.turn()
    assert [kind for kind, _ in sent] == [Up.BIRTH, Up.REPORTED, Up.PROFILE]
    report = sent[1][1].slots["q"]
    assert (report.active, report.variant, report.attempt, report.progress, report.state) == (A, "m", 2, 0.5, "idle")
    assert (sent[2][1].n, sent[2][1].seq, sent[2][1].resources) == (4, 1, {"cpu_s": 0.5})
    assert told.turn() == []


def test_a_report_that_the_link_does_not_take_is_told_at_the_next_turn(told):
    told.link.connect()
    told.turn()
    told.uplink.changed()
    told.link.is_full = True
    assert told.turn() == []
    told.link.is_full = False
    assert [kind for kind, _ in told.turn()] == [Up.REPORTED]
    assert told.turn() == []


def test_a_change_that_comes_while_the_report_goes_out_is_told_in_another(told):
    told.link.connect()
    told.turn()
    publish = told.link.publish

    def slow(kind, payload):
        told.link.publish = publish
        told.state = DeviceState(4, "h", told.state.slots)
        told.uplink.changed()  # the updating thread, after this report was made
        return publish(kind, payload)

    told.uplink.changed()
    told.link.publish = slow
    assert [message.generation for _, message in told.turn()] == [3]
    assert [message.generation for _, message in told.turn()] == [4]
    assert told.turn() == []


def test_a_birth_that_the_link_does_not_take_is_told_at_the_next_turn(told):
    told.link.is_full = True
    told.link.connect()
    assert told.turn() == []
    told.link.is_full = False
    assert [kind for kind, _ in told.turn()] == [Up.BIRTH, Up.REPORTED]
    assert told.turn() == []


def test_a_window_is_sent_again_unchanged_until_the_server_acknowledges_it(told):
    told.link.connect()
    told.turn()
    told.window()
    (first,) = told.turn()
    assert told.turn(9.0) == []
    (again,) = told.turn(2.0)
    assert again == first
    told.link.connect()
    assert again in told.turn()
    told.ack(through=1)
    assert told.turn(60.0) == []
    assert told.spool.waiting() == []


def test_an_acknowledgement_that_does_not_parse_harms_nothing(told):
    told.link.connect()
    told.turn()
    told.window()
    told.link.handlers.on_message(Down.ACK, b"{")
    assert len(told.turn()) == 1
    assert told.spool.waiting() == [1]


def test_a_change_is_reported_and_documents_are_passed_on(told):
    told.link.connect()
    told.turn()
    told.uplink.changed()
    assert [kind for kind, _ in told.turn()] == [Up.REPORTED]
    told.link.handlers.on_message(Down.DESIRED, b"document")
    assert told.documents == [b"document"]


def test_what_is_dropped_for_want_of_room_is_told(told):
    small = Told(budget_bytes=300)
    for _ in range(4):
        small.window()
        small.spool.hand_over(small.spool.waiting())  # as a link does: what was sent is not merged
    small.link.connect()
    events = [message for kind, message in small.turn() if kind is Up.EVENT]
    assert events
    assert {event.kind for event in events} == {"lost"}
    lost = [seq for event in events for first, last in event.data["ranges"] for seq in range(first, last + 1)]
    assert len(lost) == len(set(lost)) == small.spool.usage().dropped
    assert set(lost).isdisjoint(small.spool.waiting())


def test_presence_numbers_let_the_will_come_after_its_connect_and_before_the_next(told):
    orders = [parse_message(Up.PRESENCE, raw) for _ in range(2) for raw in told.messages.greeting()]
    assert [m.online for m in orders] == [True, False, True, False]
    assert [m.order for m in orders] == sorted(m.order for m in orders)


def test_a_slot_without_a_model_says_so_and_a_failed_target_names_its_fault():
    assert slot_report(Slot()).state == "no_model"
    slot = Slot(active=A, target=Target("sha256:" + "b" * 64), bad={"sha256:" + "b" * 64: SlotFault("c", "m", "x")})
    assert slot_report(slot).error.code == "c"
    assert slot_report(Slot(target=Target(A))).error is None


def lost(told) -> list[tuple[int, list]]:
    events = [parse_message(m.kind, m.body) for m in told.spool.read(told.spool.waiting()) if m.kind is Up.EVENT]
    return [(event.data["count"], event.data["ranges"]) for event in events if event.kind == "lost"]


def test_what_the_server_refuses_is_not_sent_again_but_counted_and_told(told):
    told.link.connect()
    told.window()
    told.window()
    first = told.turn() and told.link.sent[-2]
    told.link.handlers.on_refused(*first, "malformed")
    (event,) = told.turn()
    assert (event[1].kind, event[1].data) == ("lost", {"count": 1, "ranges": [[1, 1]], "rows": 4})
    assert (told.spool.waiting(), told.spool.usage().dropped) == ([2, 3], 1)
    assert {message.seq for _, message in told.turn(11.0)} == {2, 3}


def test_a_refused_word_of_a_loss_is_counted_and_no_further_one_is_made(told):
    told.link.connect()
    told.window()
    told.turn()
    for dropped in (1, 2):
        told.link.handlers.on_refused(*told.link.sent[-1], "malformed")
        told.turn()
        assert told.spool.usage().dropped == dropped
    assert told.spool.waiting() == []


def test_a_refused_report_harms_nothing(told):
    told.window()
    told.link.connect()
    told.turn()
    told.link.handlers.on_refused(*told.link.sent[1], "malformed")
    assert told.turn() == []
    assert (told.spool.waiting(), told.spool.usage().dropped) == ([1], 0)


def test_a_message_that_only_later_ones_are_acknowledged_of_is_given_up(told):
    told.link.connect()
    told.window()
    told.turn()
    for later in range(2, 6):
        assert lost(told) == []
        told.window()
        told.turn(11.0)
        told.ack(through=0, ranges=((2, later),))
    told.turn()
    assert lost(told) == [(1, [[1, 1]])]
    assert (told.spool.waiting(), told.spool.usage().dropped) == ([6], 1)


def test_windows_that_could_not_be_stored_are_told_when_there_is_room(told, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(told.spool, "append", lambda *_, **__: (_ for _ in ()).throw(SpoolError("full")))
        told.window()
        told.window()
    assert (told.sink.failed, told.spool.waiting()) == (2, [])
    told.window()
    told.window()
    assert lost(told) == [(2, [])]
