"""One TCP connection of a device to the embedded endpoint: bytes in, packets to the session, its effects carried out.

Owns the transport and how far this device may run ahead. Everything here runs in the endpoint's loop thread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from shoal_protocol.mqtt.packet_codec import PacketReader, encode_packet
from shoal_protocol.mqtt.packets import ConnAck, ConnectCode, Packet, PacketError, ProtocolLevelError, PubAck
from shoal_server.link.session import Admit, Close, Effect, HandOver, Phase, Recall, Send, Session

if TYPE_CHECKING:
    from shoal_server.link.endpoint import EmbeddedLink

log = logging.getLogger(__name__)

_FLUSH_S = 5.0


class Connection(asyncio.Protocol):
    """A device, or somebody who wants to be taken for one.

    Args:
        link: The endpoint that it is connected to.
    """

    def __init__(self, link: EmbeddedLink) -> None:
        self.session = Session(link.authenticate)
        self._link = link
        self._limits = link.limits
        self._reader = PacketReader()
        self._transport: Any = None
        self.address = ""
        """Where it comes from, while it has not proven who it is; empty for this machine itself."""
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._heard_at = self._loop.time()
        self._undone = 0
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once when the endpoint is full."""
        self._transport = transport
        self.address = _address_of(transport)
        self._transport.set_write_buffer_limits(high=self._limits.unsent_bytes)
        if not self._link.opened(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the device."""
        self._heard_at = self._loop.time()
        self._reader.feed(data)
        self._read_packets()

    def _read_packets(self) -> None:
        """Take packets until there is no whole one, the device is too far ahead, or the session ends."""
        try:
            while not self._is_paused:
                if self._link.full or self._undone >= self._limits.undone_per_device:
                    self._pause()
                    return
                packet = self._reader.next_packet()
                if packet is None:
                    return
                self.carry_out(self.session.receive(packet))
                if self.session.phase is Phase.CLOSED:
                    return
        except PacketError as error:
            if isinstance(error, ProtocolLevelError) and self.session.phase is Phase.NEW:
                self._send(ConnAck(ConnectCode.BAD_PROTOCOL))
            self.carry_out(self.session.close(f"malformed: {error.message}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Take leave of a connection that has ended, by whoever's wish."""
        self.carry_out(self.session.close(f"the connection was lost: {exc}"))
        self._link.gone(self)

    def pause_writing(self) -> None:
        """Throw out a device that does not read: what it is sent would grow without end."""
        self.abort()

    def abort(self) -> None:
        """End the connection without sending what waits."""
        self._transport.abort()

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what the session decided, in order."""
        for effect in effects:
            match effect:
                case Send(packet):
                    self._send(packet)
                case HandOver():
                    self._hand_over(effect)
                case Admit(device):
                    self._link.admitted(device, self)
                case Recall(topics):
                    self._recall(topics)
                case Close(reason):
                    log.debug("device %s: connection closed: %s", self.session.device or "?", reason)
                    self._heard_at = self._loop.time()
                    self._link.closed(self)
                    self._transport.close()

    def done(self, packet_id: int) -> None:
        """Acknowledge a message whose effects are committed, unless the connection is over."""
        self._undone -= 1
        if packet_id and self.session.phase is Phase.OPEN:
            self._send(PubAck(packet_id))
        self.resume_if_low()

    def resume_if_low(self) -> None:
        """Read again when enough is done."""
        if self._is_paused and not self._link.full and self._undone <= self._limits.undone_per_device // 2:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._link.resumed(self)
            self._read_packets()
            if not self._is_paused and not self._transport.is_closing():
                self._transport.resume_reading()

    def end_if_silent(self, now: float) -> None:
        """End the connection when no CONNECT or nothing at all has come for too long.

        Not being read is no silence of the device's.
        """
        silent_s = now - self._heard_at
        match self.session.phase:
            case Phase.CLOSED if silent_s > _FLUSH_S:
                self.abort()
            case Phase.NEW if now - self._opened_at > self._limits.connect_s:  # however busily it drips
                self.carry_out(self.session.close("no CONNECT came"))
            case Phase.OPEN if not self._is_paused and silent_s > self._allowed_silence_s():
                self.carry_out(self.session.close("silent for longer than its keep-alive"))

    def _allowed_silence_s(self) -> float:
        longest = self._limits.max_keep_alive_s
        return 1.5 * min(self.session.keep_alive_s or longest, longest)  # 3.1.2.10

    def _send(self, packet: Packet) -> None:
        if not self._transport.is_closing():
            self._transport.write(encode_packet(packet))

    def _hand_over(self, effect: HandOver) -> None:
        self._undone += 1
        if not self._link.hand_over(self, effect):
            self._undone -= 1

    def _pause(self) -> None:
        self._is_paused = True
        self._link.paused(self)
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _recall(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            payload = self._link.stored(topic)
            if payload is not None:
                self.carry_out(self.session.deliver(topic, payload, retain=True))


def _address_of(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    host = str(peer[0]) if peer else ""
    return "" if host.startswith("127.") or host in {"::1", "::ffff:127.0.0.1"} else host
