"""The updating thread's turn: documents that must be tried again, and requests of other processes."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner

from shoal_agent.domain.device import DeviceState
from shoal_agent.errors import NoModelError
from shoal_agent.testing import FakeClock, MemorySpool
from shoal_agent.updating.assignments import AssignmentIntake
from shoal_agent.updating.desk import Desk, ask_roll_back
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.updater import Inbox, Updater
from shoal_protocol.trust.assignment import Assignment, SlotTarget, sign_assignment
from shoal_protocol.trust.envelope import opened

SIGNER = CryptoSigner.generate_ecdsa()
NO_SPACE = OSError(28, "No space left on device")


class Place:
    """An updater whose transactions only remember what they were told."""

    def __init__(self, folder) -> None:
        self.clock, self.now_ms, self.floor_error = FakeClock(), 5_000, None
        self.taken: list[int] = []
        self.rolled_back: list[str] = []
        self.worked = 0
        self.inbox, self.spool = Inbox(), MemorySpool()
        trust = SimpleNamespace(
            opened=lambda raw, kind, what: opened(raw, kind, [SIGNER.public_key], what=what),
            refresh=lambda: None,
            check_time=lambda _issued: None,
            now_ms=lambda: self.now_ms,
            raise_floors=self._raise_floors,
        )
        transactions = SimpleNamespace(
            state=DeviceState(),
            take_over=self._take_over,
            roll_back=lambda slot, reason: self.rolled_back.append(slot),
            tick=lambda: None,
            work=self._work,
            idle_s=lambda: None,
            on_trial=lambda: False,
        )
        self.desk = Desk(folder / "requests", show=lambda: None, monotonic=self.clock)
        self.updater = Updater(
            transactions,
            intake=lambda: AssignmentIntake("d", trust),
            inbox=self.inbox,
            spool=self.spool,
            messages=Messages(epoch=self.spool.epoch, boot=1, clock=self.clock),
            desk=self.desk,
            tick_s=1.0,
            monotonic=self.clock,
        )

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.move(seconds)
        self.updater.turn()

    def wants(self, generation: int = 7) -> None:
        wish = {"s": SlotTarget(digest="sha256:" + "a" * 64)}
        document = Assignment(device="d", generation=generation, slots=wish, issued=1_000, expires=10_000)
        self.inbox.put_document(sign_assignment(document, SIGNER))

    def _take_over(self, assignment: Assignment) -> None:
        self.taken.append(assignment.generation)
        self.updater._transactions.state = DeviceState(assignment.generation, assignment.content_digest)

    def _raise_floors(self, **_floors) -> None:
        if self.floor_error is not None:
            raise self.floor_error

    def _work(self) -> None:
        self.worked += 1


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_an_assignment_whose_time_can_not_be_saved_is_taken_over_when_the_disk_has_room(place):
    place.floor_error = NO_SPACE
    place.wants()
    place.turn()
    assert place.taken == []
    place.floor_error = None
    place.turn(20.0)
    assert place.taken == [7]


def test_a_newer_assignment_is_taken_over_although_an_older_one_came_later(place):
    place.wants(8)
    place.wants(7)  # over the other way to the server, where it waited
    place.turn()
    assert place.taken == [8]
    assert not place.spool.items, "it is no attack"
    place.wants(6)
    place.turn()
    assert len(place.spool.items) == 1


def test_an_assignment_that_waits_to_be_judged_is_not_forgotten_over_an_older_one(place):
    place.wants(7)
    place.turn()
    place.floor_error = NO_SPACE
    place.wants(8)
    place.turn()
    place.floor_error = None
    place.wants(7)
    place.turn()
    place.turn(20.0)
    assert place.taken == [7, 8]


def test_an_assignment_that_only_the_clock_calls_expired_is_tried_again_when_the_clock_is_set(place):
    place.now_ms = 20_000
    place.wants()
    place.turn()
    place.turn(61.0)
    assert place.taken == []
    assert len(place.spool.items) == 1  # told once
    place.now_ms = 5_000
    place.turn(61.0)
    assert place.taken == [7]


@pytest.mark.parametrize("answer_fails", [False, True])
def test_a_request_is_carried_out_once_even_when_the_disk_takes_no_answer(place, monkeypatch, answer_fails):
    wish = place.desk._folder / "a.wish"
    wish.write_bytes(msgspec.json.encode({"slot": "s", "reason": "r"}))
    assert place.desk.has_requests()
    if answer_fails:
        monkeypatch.setattr("shoal_agent.updating.desk._write", _no_space)
    place.turn()
    place.turn()
    assert (place.rolled_back, place.worked, place.desk.has_requests()) == (["s"], 2, False)
    assert wish.with_suffix(".answer").exists() is not answer_fails


def test_a_request_that_can_not_be_read_is_left_alone_and_told_once(place, caplog):
    (place.desk._folder / "a.wish").mkdir()  # as unreadable as on a failing disk, for root too
    place.turn()
    place.turn()
    assert not place.desk.has_requests(), "else every update would be given up for it"
    assert caplog.text.count("a.wish is not carried out") == 1
    (place.desk._folder / "b.wish").write_bytes(msgspec.json.encode({"slot": "s", "reason": "r"}))
    assert place.desk.has_requests()
    place.turn()
    assert place.rolled_back == ["s"]


def test_what_requests_left_behind_is_deleted_after_a_day(tmp_path):
    names = ("a.parcel", "a.mail", "a.answer", "a.tmp", "a.wish")
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    made = (tmp_path / "a.tmp").stat().st_mtime

    def left(age_s):
        Desk(tmp_path, show=lambda: None, monotonic=FakeClock(), clock=lambda: made + age_s)
        return sorted(path.name for path in tmp_path.iterdir())

    assert left(86_000.0) == sorted(names)
    assert left(87_000.0) == ["a.wish"]


def test_who_asks_and_is_interrupted_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    (tmp_path / "requests").mkdir()
    monkeypatch.setattr("shoal_agent.updating.desk.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask_roll_back(tmp_path, "s", reason="r", timeout_s=60.0)
    assert list((tmp_path / "requests").iterdir()) == []


def test_a_request_that_is_refused_is_answered_with_the_reason(place):
    def refuse(slot, reason):
        raise NoModelError("nothing to go back to")

    place.updater._transactions.roll_back = refuse
    wish = place.desk._folder / "a.wish"
    wish.write_bytes(msgspec.json.encode({"slot": "s", "reason": "r"}))
    place.turn()
    assert b"nothing to go back to" in wish.with_suffix(".answer").read_bytes()


def _no_space(_path, _data):
    raise NO_SPACE
