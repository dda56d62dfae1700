"""Two threads at the worst moment: each test forces the order of steps that once lost something."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from fixtures_models import linear_spec
from shoal_agent.adapters.guarded_thread import Shift
from shoal_agent.adapters.http_link import HttpLink
from shoal_agent.adapters.label_book import SqliteLabelBook
from shoal_agent.adapters.mqtt_link import MqttLink
from shoal_agent.adapters.rotation import Rotation
from shoal_agent.adapters.spool import SqliteSpool
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.coarsening import Span
from shoal_agent.errors import LabelBookError, SpoolError
from shoal_agent.ports import LabelCount, LinkHandlers, Shed
from shoal_agent.runtime import shadow as shadow_module
from shoal_agent.runtime.observer import Observer
from shoal_agent.runtime.shadow import QUEUE_ROWS, Shadow
from shoal_agent.runtime.slots import _Leaving
from shoal_agent.runtime.windows import ClosedWindow
from shoal_agent.serving.connection import Limits
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import Listen
from shoal_agent.testing import FakeClock, MemorySpool
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.window_spool import WindowSpool
from shoal_protocol.mqtt.messages import Ack, Event, parse_message
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.profile import Profile

DIGEST = "sha256:" + "a" * 64
NOTHING = LinkHandlers(
    on_message=lambda *_: None, on_connected=lambda: None, greeting=lambda: (b"", b""), farewell=lambda: b""
)


def let(meanwhile: Callable[[], object]) -> threading.Thread:
    """Let another thread go as far as nothing holds it up."""
    other = threading.Thread(target=meanwhile)
    other.start()
    other.join(0.3)
    return other


# The links ------------------------------------------------------------------------------------------------------


class Vanishing(MqttLink):
    """A link whose line ends right after somebody looked at it."""

    looks = 0

    @property
    def _line(self):
        self.looks += 1
        return SimpleNamespace(publish=lambda *_: True) if self.looks == 1 else None

    @_line.setter
    def _line(self, _line) -> None:
        """Nothing to be done."""


def mqtt_link(kind: type[MqttLink] = MqttLink) -> MqttLink:
    return kind("mqtt://h", device="d", secret=str, ca_file=None, backoff=Backoff(), chance=lambda: 0.0)


def test_a_link_that_is_stopped_while_its_line_ends_is_stopped():
    link = mqtt_link(Vanishing)
    link._handlers, link.looks = NOTHING, 0
    link.stop()
    assert link._stopping.is_set()


class Overtaken(Shift):
    """A shift that ends, and another thread's line is placed, right after it was found to go on."""

    meanwhile: Callable[[], None] | None = None
    other: threading.Thread | None = None

    def over(self) -> bool:
        found = super().over()
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            self.end()
            self.other = let(act)
        return found


@pytest.mark.parametrize("late", ["a line", None])
def test_a_thread_that_was_replaced_does_not_replace_the_line_of_the_next_one(late):
    link, first, second = mqtt_link(), Overtaken(FakeClock()), Shift(FakeClock())
    first.meanwhile = lambda: link._put(second, "the next one's line")
    link._put(first, late)
    first.other.join()
    assert link._line == "the next one's line"


def test_a_document_that_was_polled_while_mqtt_came_up_is_left_to_mqtt():
    wanted, taken = [True], []

    def exchange(*_args, **_more):
        wanted.clear()  # MQTT has connected, and brought a newer document, before the answer is read
        return 200, {}, b"older"

    link = HttpLink(
        SimpleNamespace(exchange=exchange),
        poll_s=1.0,
        first_s=0.0,
        wanted=lambda: bool(wanted),
        backoff=Backoff(),
        chance=lambda: 0.0,
    )
    link._ask_desired(SimpleNamespace(on_message=lambda kind, body: taken.append(body)))
    assert taken == []


def test_a_wish_for_credentials_that_comes_while_the_thread_ends_is_carried_out():
    held = SimpleNamespace(is_confirmed=True, identity=SimpleNamespace(credential=1))
    others: list[threading.Thread] = []
    turns = threading.Semaphore(0)

    class Quick(Rotation):
        def turn(self) -> None:
            held.identity.credential += 1
            turns.release()

    def close() -> None:
        if not others:
            others.append(let(lambda: rotation.wish(3)))

    rotation = Quick(held, SimpleNamespace(close=close), backoff=Backoff(), chance=lambda: 0.0)
    rotation.wish(2)
    assert turns.acquire(timeout=30)
    assert turns.acquire(timeout=30), "the second wish was lost"
    others[0].join()
    rotation.stop()


class Knocks:
    """A listener to which somebody connects just when it is closed; the accepting thread is slow to tell."""

    def __init__(self, connection) -> None:
        self._connections = [connection]
        self.may_accept = threading.Event()

    def accept(self):
        assert self.may_accept.wait(30)
        if self._connections:
            return self._connections.pop(), None
        raise OSError("closed")

    def shutdown(self, _how) -> None:
        """Nothing to be done."""

    def close(self) -> None:
        """Nothing to be done."""


def test_who_connects_while_the_interface_stops_is_not_answered_afterwards(tmp_path):
    ours, theirs = socket.socketpair()
    server = LocalServer(lambda *_: pytest.fail("answered"), Listen(path=tmp_path / "s"), limits=Limits())
    knocks = Knocks(theirs)
    server._socket = knocks

    class Slow(threading.Thread):
        def join(self, timeout=None):
            knocks.may_accept.set()
            super().join(30)

    server._thread = Slow(target=server._accept, args=(knocks,), daemon=True)
    server._thread.start()
    server.stop()
    with ours:
        ours.settimeout(30)
        assert ours.recv(1) == b"", "the connection outlived the interface"
    assert not server._connections


# Spool and label book -------------------------------------------------------------------------------------------


def test_what_one_thread_hands_over_is_not_forgotten_by_another_that_hands_over_less(tmp_path):
    spool = SqliteSpool(tmp_path / "s", budget_bytes=60, new_epoch=lambda: "a" * 16)
    for at in range(12):
        spool.append(Up.PROFILE, lambda _: b"0000000001", span=Span("s", 1000 * at, 1000, rows=1))
    transaction = spool._transaction

    def late():
        spool._transaction = transaction
        spool.hand_over([12])  # the uplink, while the writer of mail is about to
        return transaction()

    spool._transaction = late
    spool.hand_over([6])
    merged: list[int] = []
    spool.make_room(Shed(lambda *_: b"l", lambda _seq, bodies: b"m", lambda _seq, parts: merged.extend(parts) or b"m"))
    assert merged == [], "what was sent would be counted again"
    spool.close()


def closed_window() -> ClosedWindow:
    profile = Profile("0" * 16, 4, np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    return ClosedWindow("q", DIGEST, "0" * 16, 1000, 1000, 4, 0, (), {}, profile)


class Labelled:
    """A spool and a label book, with labels that wait."""

    def __init__(self) -> None:
        self.spool, self.book = MemorySpool(), SqliteLabelBook(":memory:")
        self.book.register(b"model", slot="q", digest=DIGEST, form=b"{}")
        self.book.count([LabelCount(b"model", b"%d" % n, 0, 1000, 0, 1, 2) for n in range(3)])
        self.messages = Messages(epoch=self.spool.epoch, boot=1, clock=FakeClock())

    def sink(self) -> WindowSpool:
        return WindowSpool(self.spool, self.messages, stored=lambda: None, labels=self.book)

    def told(self) -> int:
        messages = (parse_message(one.kind, one.body) for one in self.spool.items.values())
        groups = [group for one in messages if not isinstance(one, Event) for group in one.labels]
        return sum(cell[3] for group in groups for cell in group.cells)


def fail(*_args, **_more):
    raise LabelBookError("the disk is full")


@pytest.fixture
def labelled() -> Iterator[Labelled]:
    made = Labelled()
    yield made
    made.book.close()


def test_labels_are_told_once_where_the_book_could_not_note_it_and_the_server_was_quick(labelled, monkeypatch):
    sink = labelled.sink()
    with monkeypatch.context() as broken:
        broken.setattr(labelled.book, "delivered", fail)
        sink.append(closed_window())
    assert labelled.told() == 3
    labelled.spool.acknowledge(Ack(epoch=labelled.spool.epoch, through=1))
    labelled.sink()  # the next start finds neither message nor note
    assert (labelled.book.waiting, labelled.book.taken()) == (0, ())
    sink.append(closed_window())
    assert labelled.told() == 0


def test_labels_of_a_message_that_was_not_stored_wait_although_its_number_went_to_another(labelled, monkeypatch):
    sink, append = labelled.sink(), labelled.spool.append

    def full(kind, build, **more):
        append(kind, lambda seq: (build(seq), fail())[0], **more)  # built, then not stored

    with monkeypatch.context() as broken:
        broken.setattr(labelled.spool, "append", full)
        broken.setattr(labelled.book, "put_back", fail)
        sink.append(closed_window())
    labelled.spool.append(Up.EVENT, labelled.messages.event("note"))
    assert labelled.book.waiting == 0
    labelled.sink()
    assert labelled.book.waiting == 1
    sink.append(closed_window())
    assert labelled.told() == 3


def test_the_spare_spool_says_nothing_of_what_the_file_may_have_stored(labelled):
    labelled.book.take(77)
    spare = MemorySpool(fault="the disk takes nothing")
    with pytest.raises(SpoolError, match="can't be asked"):
        spare.has_stored("labels/77")
    WindowSpool(spare, labelled.messages, stored=lambda: None, labels=labelled.book)
    assert labelled.book.taken() == (77,)


# Observers and shadows ------------------------------------------------------------------------------------------


class Tally:
    """Sums of a shadow, as an observer sees them."""

    has_ended = False

    def close(self):
        return SimpleNamespace(is_silent=False)


class Watched(Observer):
    """An observer whose windows are closed by another thread while a shadow begins."""

    meanwhile: Callable[[], object] | None = None
    other: threading.Thread | None = None
    reads = 0

    @property
    def _tallies(self):
        read = self._those
        self.reads -= 1
        if self.meanwhile is not None and self.reads <= 0:
            act, self.meanwhile = self.meanwhile, None
            self.other = let(act)
        return read

    @_tallies.setter
    def _tallies(self, now) -> None:
        self._those = now


@pytest.mark.parametrize("reads", [1, 2])
def test_a_shadow_that_begins_while_a_window_closes_is_told(reads):
    observer, old, new = Watched(linear_spec(1, 2)), Tally(), Tally()
    observer.watch(old)
    old.has_ended = True
    observer.meanwhile, observer.reads = lambda: observer.watch(new), reads
    observer.close_shadows()
    observer.other.join()
    assert observer._those == (new,)


def test_the_last_window_of_a_model_waits_for_its_shadow_to_end():
    engine, observer = SimpleNamespace(form="model/model.onnx"), Observer(linear_spec(1, 2))
    model = SimpleNamespace(name="q", version="1", digest=DIGEST, engine=engine, observer=observer)

    class Model:
        pass

    gone = Model()
    vars(gone).update(vars(model))
    leaving, tally = _Leaving("q", gone), Tally()
    gone.observer.watch(tally)
    leaving.release()
    assert not leaving.seen().is_gone
    tally.has_ended = True
    assert not leaving.seen().is_gone, "its sums are still to be told"
    assert len(gone.observer.close_shadows()) == 1
    assert leaving.seen().is_gone


def test_totals_go_on_with_what_the_observer_before_still_answers():
    first, second, third = (Observer(None) for _ in range(3))
    first.answered([], 2, 100)
    second.continue_from(first)
    first.answered([], 3, 100)  # a call that was under way when the two were exchanged
    assert (second.totals().calls, second.totals().rows) == (2, 5)
    second.answered([], 1, 100)
    third.continue_from(second)
    second.failed()
    assert (third.totals().rows, third.totals().errors, second.totals().rows) == (6, 1, 6)


class Model:
    """The active model as a shadow sees it."""

    def __init__(self) -> None:
        self.schema = SimpleNamespace(tensors=(), inputs=(), output=lambda _role: None)
        self.digest, self.name, self.observer = DIGEST, "m", Observer(None)

    def follow(self, _one) -> None:
        """Nothing to be done."""

    unfollow = follow


@contextmanager
def idle_shadow(monkeypatch) -> Iterator[Shadow]:
    """Give a shadow whose thread takes nothing from the queue."""
    monkeypatch.setattr(shadow_module.Shadow, "_run", lambda self: None)
    active = Model()
    shadow = Shadow(active, Model(), share=1.0)
    shadow.start()
    yield shadow


def call(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.zeros((rows, 1), np.float32)}


def test_a_call_that_was_answered_while_the_shadow_ended_is_not_kept(monkeypatch):
    with idle_shadow(monkeypatch) as shadow:
        shadow.answered(call(5), {}, 1)
        shadow.stop()
        shadow.answered(call(7), {}, 1)  # its thread had read the followers before
        assert shadow.tally.close().dropped == 5
        assert not shadow._calls


def test_no_more_rows_wait_for_a_shadow_than_may_however_many_threads_answer(monkeypatch):
    with idle_shadow(monkeypatch) as shadow:

        class Copied(dict):
            meanwhile = True

            def items(self):
                if self.meanwhile:
                    self.meanwhile = False
                    let(lambda: shadow.answered(call(100), {}, 1))
                return super().items()

        calls = QUEUE_ROWS // 100
        for _ in range(calls - 1):
            shadow.answered(call(100), {}, 1)
        shadow.answered(Copied(call(100)), {}, 1)
        assert sum(one[2] for one in shadow._calls) == shadow._waiting_rows == 100 * calls
        shadow.stop()
        assert shadow.tally.close().dropped == 100 * (calls + 1)
