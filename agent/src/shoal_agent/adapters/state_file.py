"""``state.json`` and ``state.prev``: what the device remembers, each with a checksum over its content.

The wire form is one line with the sha256 of the rest, then JSON. Saving keeps the last intact content as
``state.prev`` first; so there is an intact file at every instant, and a file that fails its checksum is never believed.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from shoal_agent.adapters.durable import put
from shoal_agent.domain.device import DeviceState
from shoal_agent.errors import DamagedFileError
from shoal_protocol.canonical import sha256_digest

_log = logging.getLogger(__name__)


def encode_state(state: DeviceState) -> bytes:
    """Return the file's content."""
    body = msgspec.json.encode(state)
    return sha256_digest(body).encode() + b"\n" + body


def decode_state(raw: bytes) -> DeviceState:
    """Parse the file's content.

    Raises:
        DamagedFileError: The checksum fails, or the content is not a device's state.
    """
    head, newline, body = raw.partition(b"\n")
    if not newline or head.decode(errors="replace") != sha256_digest(body):
        raise DamagedFileError("the checksum of the state file does not match its content")
    try:
        return msgspec.json.decode(body, type=DeviceState)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DamagedFileError(f"the state file does not parse: {error}") from error


class StateFile:
    """The pair of files in the state folder; one writer."""

    def __init__(self, folder: Path) -> None:
        self._current = folder / "state.json"
        self._previous = folder / "state.prev"
        self._intact: bytes | None = None
        self._doubtful = False

    def load(self) -> DeviceState | None:
        """Return the newest intact state.

        Returns:
            None when there never was one.

        Raises:
            DamagedFileError: There are files, but none is intact.
        """
        faults = []
        for path in (self._current, self._previous):
            try:
                raw = path.read_bytes()
                state = decode_state(raw)
            except FileNotFoundError:
                continue
            except (OSError, DamagedFileError) as error:
                _log.error("%s can't be used: %s", path.name, error)
                faults.append(f"{path.name}: {error}")
                continue
            self._intact = raw
            return state
        if faults:
            raise DamagedFileError("; ".join(faults), hint="the agent looks for its models in the blob store")
        return None

    def save(self, state: DeviceState) -> None:
        """Replace the state by one rename, after the last intact one was put aside.

        Raises:
            OSError: The disk is full or failing; the state on disk is the old one, or (a folder that could not be
                synced) the new one: whichever is saved next replaces it.
        """
        raw = encode_state(state)
        if raw == self._intact and not self._doubtful:
            return
        self._doubtful = True
        if self._intact is not None:
            put(self._previous, self._intact)
        put(self._current, raw)
        self._intact, self._doubtful = raw, False
