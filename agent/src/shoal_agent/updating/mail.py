"""Writing mail: what waits for the server, and how the device stands, into a file that somebody carries there.

What was written counts as handed over: it never changes any more, so that the server, which numbers tell what it has
already, counts it once however it arrives. It stays in the spool until the server acknowledges it, over the network or
by the receipt in a parcel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from shoal_agent.ports import Spool
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.parcel import MAX_MESSAGE_BYTES, MAX_MESSAGES, Letter, letter_body, signed_bytes


class Mail:
    """Writes the mail of one device.

    Args:
        device: Its id.
        spool: What waits.
        standing: Returns how the device stands, as messages that are not spooled: birth and reported.
        sign: Signs by the device's own key; returns hexadecimal.
        now_ms: Milliseconds since the epoch.
    """

    def __init__(
        self,
        device: str,
        spool: Spool,
        *,
        standing: Callable[[], list[tuple[Up, bytes]]],
        sign: Callable[[bytes], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._device = device
        self._spool = spool
        self._standing = standing
        self._sign = sign
        self._now_ms = now_ms

    def write(self, path: Path) -> dict[str, int]:
        """Write all that waits, and return how many messages of each kind that was.

        Args:
            path: Of the file; it is replaced once it is whole.

        Raises:
            SpoolError: That these are handed over can't be noted, so nothing is.
            OSError: The file can't be written.
            LocalError: The device has no key to sign with.
        """
        counts: dict[str, int] = {}
        temporary = path.with_name(f"{path.name}.tmp")
        with temporary.open("wb") as file:
            for messages in self._letters():
                body = letter_body(self._device, messages, made_at=self._now_ms())
                letter = Letter(body, self._sign(signed_bytes(body)))
                file.write(msgspec.json.encode(letter) + b"\n")
                for kind, _ in messages:
                    counts[kind.value] = counts.get(kind.value, 0) + 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return counts

    def acknowledged(self, ack: Ack) -> int:
        """Forget what the server has; returns how many messages that were.

        Raises:
            SpoolError: The disk does not take it.
        """
        return self._spool.acknowledge(ack)

    def _letters(self) -> Iterator[list[tuple[Up, bytes]]]:
        yield self._standing()
        waiting = self._spool.waiting(sys.maxsize)  # numbers only; the bodies are read a letter at a time
        self._spool.hand_over(waiting)
        letter: list[tuple[Up, bytes]] = []
        size = 0
        for begin in range(0, len(waiting), MAX_MESSAGES):
            for message in self._spool.read(waiting[begin : begin + MAX_MESSAGES]):
                if len(letter) == MAX_MESSAGES or size + len(message.body) > MAX_MESSAGE_BYTES:
                    yield letter
                    letter, size = [], 0
                letter.append((message.kind, message.body))
                size += len(message.body)
        if letter:
            yield letter
