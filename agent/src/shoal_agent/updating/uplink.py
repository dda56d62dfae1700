"""The thread that tells the server: windows and events from the spool, and what really runs.

Owns which message goes out when. A spooled message goes only by the server's acknowledgement, or is given up when the
server can't take it, which is told in an event of its own. Presence, birth and reported are sent anew after every
connect, reported also after every change (gathered for a moment). The same thread closes the windows, so that an agent
needs no further one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.hold import Hold
from shoal_agent.domain.outbox import Outbox
from shoal_agent.domain.slot import SlotFault
from shoal_agent.errors import SpoolError
from shoal_agent.ports import Clock, Link, LinkHandlers, LinkReport, Spool, Spooled
from shoal_agent.updating.messages import Messages
from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.messages import Event, ShadowReport, parse_ack, parse_message
from shoal_protocol.mqtt.topics import Down, Up

if TYPE_CHECKING:
    from shoal_agent.runtime.windows import WindowClock

_IDLE_S = 5.0
_GATHER_S = 0.05
_log = logging.getLogger(__name__)


class Situation(msgspec.Struct, frozen=True):
    """What is told about the device, asked for at every report.

    Attributes:
        facts: Fields of the birth message.
        state: Of the device.
        progress: Share of the download, by slot.
        variants: Path of the variant that runs, by slot.
        shadows: What runs beside the active model, by slot.
        revoked: Why bundles are revoked, by digest.
        troubles: What keeps a slot waiting, by slot.
        hold: The hold of an operator at the device.
    """

    facts: Callable[[], Mapping[str, Any]]
    state: Callable[[], DeviceState]
    progress: Callable[[], Mapping[str, float]]
    variants: Callable[[], Mapping[str, str]]
    shadows: Callable[[], Mapping[str, ShadowReport]] = dict
    revoked: Callable[[], Mapping[str, str]] = dict
    troubles: Callable[[], Mapping[str, SlotFault]] = dict
    hold: Callable[[], Hold | None] = lambda: None


class Uplink:
    """Sends what one device has to say.

    Args:
        link: To the server; none: nothing is sent, the spool still fills.
        spool: What waits.
        messages: Makes messages.
        situation: What is told.
        windows: Closed on this thread.
        monotonic: Seconds for durations.
        resend_s: After so many seconds without acknowledgement a message is sent again.
        beat: Called at every turn, as a sign of life.
    """

    def __init__(
        self,
        link: Link | None,
        *,
        spool: Spool,
        messages: Messages,
        situation: Situation,
        windows: WindowClock,
        monotonic: Clock,
        resend_s: float,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._beat = beat
        self._link = link
        self._spool = spool
        self._messages = messages
        self._situation = situation
        self._windows = windows
        self._monotonic = monotonic
        self._outbox = Outbox(resend_s=resend_s)
        self._acks: deque[bytes] = deque(maxlen=64)
        self._refused: deque[tuple[Up, bytes, str]] = deque(maxlen=256)
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._connected_anew = self._changed = False

    @property
    def connected(self) -> bool:
        """Whether the server can be told something now."""
        return self._link is not None and self._link.connected

    def link_report(self) -> LinkReport:
        """Return how the server is talked to now."""
        return LinkReport() if self._link is None else self._link.report()

    def start_link(self, on_document: Callable[[bytes], None]) -> None:
        """Connect in the background; documents go to `on_document`."""
        if self._link is None:
            return

        def on_message(kind: Down, payload: bytes) -> None:
            if kind is Down.DESIRED:
                on_document(payload)
            else:
                self._acks.append(payload)
                self._wake.set()

        self._link.start(
            LinkHandlers(
                on_message=on_message,
                on_connected=self._on_connected,
                greeting=self._messages.greeting,
                farewell=self._messages.farewell,
                on_refused=self._on_refused,
            )
        )

    def changed(self) -> None:
        """Say that there is something new to report."""
        self._changed = True
        self._wake.set()

    def nudge(self) -> None:
        """Say that something new is in the spool."""
        self._wake.set()

    def run(self) -> None:
        """Work until told to stop; for a thread of its own."""
        while not self._stopping.is_set():
            pause_s = _IDLE_S
            self._beat()
            try:
                pause_s = self.turn()
            except Exception:  # noqa: BLE001 - the boundary of the thread
                _log.exception("telling the server: a turn failed")
            if self._wake.wait(pause_s):
                self._stopping.wait(_GATHER_S)

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
        self._wake.set()

    def finish(self) -> None:
        """After the thread has ended: close the windows and the link."""
        self._windows.close_all()
        if self._link is not None:
            if self._link.connected:
                self._report()
                self._flush()
            self._link.stop()
        self._take_refusals()
        self._take_acks()

    def turn(self) -> float:
        """Close windows, take acknowledgements, send what is due; return how many seconds may pass until the next."""
        self._wake.clear()
        if self._link is not None:
            self._link.tend()
        self._windows.tick()
        self._take_refusals()
        self._take_acks()
        if self.connected:
            self._talk()
        return max(min(self._windows.due_in_s(), _IDLE_S), 0.001)

    def _on_refused(self, kind: Up, payload: bytes, fault: str) -> None:
        self._refused.append((kind, payload, fault))
        self._wake.set()

    def _on_connected(self) -> None:
        self._connected_anew = True
        self._wake.set()

    def _talk(self) -> None:
        assert self._link is not None
        if self._connected_anew:
            self._connected_anew = False
            self._outbox = self._outbox.reconnected()
            self._changed = True  # first: a birth that can't be made must not keep the report back
            if not self._link.publish(Up.BIRTH, self._messages.birth(self._situation.facts())):
                self._connected_anew = True  # what the link did not take is told at the next turn
        if self._changed:
            self._changed = False  # before looking: what changes from now on is told at the next turn
            if not self._report():
                self._changed = True
        self._flush()

    def standing(self) -> list[tuple[Up, bytes]]:
        """Return how the device stands, as the messages that are sent at every connect."""
        birth = self._messages.birth(self._situation.facts())
        return [(Up.BIRTH, birth), (Up.REPORTED, self._reported())]

    def _report(self) -> bool:
        assert self._link is not None
        return self._link.publish(Up.REPORTED, self._reported())

    def _reported(self) -> bytes:
        situation = self._situation
        return self._messages.reported(
            situation.state(),
            progress=situation.progress(),
            variants=situation.variants(),
            shadows=situation.shadows(),
            revoked=situation.revoked(),
            troubles=situation.troubles(),
            hold=situation.hold(),
        )

    def _flush(self) -> None:
        assert self._link is not None
        now, waiting = self._monotonic(), self._spool.waiting()
        self._outbox = self._outbox.forget(waiting)
        due = self._outbox.due(waiting, now)
        try:
            self._spool.hand_over(due)
        except SpoolError as error:  # what is not noted as sent could be merged, and then be counted twice
            _log.debug("nothing is sent from the spool just now: %s", error)
            return
        for message in self._spool.read(due):
            if not self._link.publish(message.kind, message.body):
                break
            self._outbox = self._outbox.hand_over([message.seq], now)

    def _take_acks(self) -> None:
        while self._acks:
            try:
                ack = parse_ack(self._acks.popleft())
            except ContentError as error:
                _log.warning("an acknowledgement does not parse: %s", error)
                continue
            self._spool.acknowledge(ack)
            if ack.epoch == self._spool.epoch:
                self._outbox = self._outbox.acknowledged(ack.covers)
        hopeless = self._outbox.hopeless()
        if hopeless:
            _log.error("the server acknowledged later messages but never %s: they are given up", hopeless)
            self._give_up(hopeless)

    def _take_refusals(self) -> None:
        """Give up what the server said it can't take: the same bytes would be refused for ever."""
        while self._refused:
            kind, payload, fault = self._refused.popleft()
            _log.error("the server can't take a message of kind %s: %s", kind.value, fault)
            under_way = self._spool.read(list(self._outbox.handed))
            self._give_up([message.seq for message in under_way if message.body == payload])

    def _give_up(self, seqs: list[int]) -> None:
        """Drop messages and tell so; that an event about losses is lost is counted, but not told by another."""
        mourned = [message.seq for message in self._spool.read(seqs) if _tells_of_loss(message)]
        self._spool.give_up(mourned, None)
        self._spool.give_up(
            sorted(set(seqs).difference(mourned)),
            lambda seq, dropped, rows: self._messages.lost(dropped, rows=rows)(seq),
        )


def _tells_of_loss(message: Spooled) -> bool:
    try:
        return isinstance(event := parse_message(message.kind, message.body), Event) and event.kind == "lost"
    except ContentError:
        return False
