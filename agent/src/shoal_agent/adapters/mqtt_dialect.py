"""Which version of MQTT a broker is spoken to: 5, unless it was found not to know it.

What was found is kept in a file, so that neither the next connection nor the next start tries in vain. It is worth
nothing for another broker, after an update of the agent, or after a month, and it is forgotten when the broker no
longer answers the older version: brokers get newer, too.

Signs, from sure to less sure: the broker says so in its answer; or it closed two connections in a row without any
answer, and then answers a connection of the older version.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

import msgspec

from shoal_agent.ports import Clock

_KEPT_S = 30 * 86_400.0
_UNANSWERED = 2
_log = logging.getLogger(__name__)


class Version(IntEnum):
    """The protocol level of CONNECT."""

    V311 = 4  # MQTT 3.1.1
    V5 = 5  # MQTT 5

    def __str__(self) -> str:
        return "MQTT 5" if self is Version.V5 else "MQTT 3.1.1"


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """``broker.json``."""

    broker: str
    version: int
    agent: str
    at: float


class Dialect:
    """The version for one broker.

    Args:
        file: Where it is kept; none: nowhere.
        broker: Its URL.
        agent: Version of this agent.
        clock: Seconds UTC.
    """

    def __init__(self, file: Path | None, *, broker: str, agent: str, clock: Clock) -> None:
        self._file, self._broker, self._agent, self._clock = file, broker, agent, clock
        self._found_at = self._read()
        self._unanswered = 0

    @property
    def _is_old(self) -> bool:
        return self._found_at is not None and abs(self._clock() - self._found_at) < _KEPT_S

    @property
    def version(self) -> Version:
        """What the next connection speaks."""
        return Version.V311 if self._is_old or self._unanswered >= _UNANSWERED else Version.V5

    def unsupported(self) -> None:
        """Note that the broker has refused the version."""
        if self.version is Version.V5:
            self._keep()
        else:
            self.unanswered()

    def unanswered(self) -> None:
        """Note that a connection was made and ended without an answer."""
        if self._is_old:
            self._unanswered += 1
            if self._unanswered >= _UNANSWERED:
                self._forget()
        else:
            self._unanswered = 0 if self.version is Version.V311 else self._unanswered + 1

    def answered(self, version: Version) -> None:
        """Note that the broker has answered a connection of a version, whatever it said."""
        if version is Version.V311 and not self._is_old:
            self._keep()
        self._unanswered = 0

    def _keep(self) -> None:
        self._found_at, self._unanswered = self._clock(), 0
        _log.info("mqtt: %s does not speak MQTT 5; from now on it is spoken to in MQTT 3.1.1", self._broker)
        if self._file is None:
            return
        found = _Found(broker=self._broker, version=int(Version.V311), agent=self._agent, at=self._found_at)
        temporary = self._file.with_name(f"{self._file.name}.tmp")
        with suppress(OSError):  # then it is found out anew; not synced, because it is worth no more than that
            temporary.write_bytes(msgspec.json.encode(found))
            temporary.replace(self._file)

    def _forget(self) -> None:
        self._found_at, self._unanswered = None, 0
        _log.info("mqtt: %s no longer answers MQTT 3.1.1; MQTT 5 is tried again", self._broker)
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _read(self) -> float | None:
        """Return when it was found that this broker knows no other version than the older one; none: it was not."""
        try:
            found = msgspec.json.decode(b"" if self._file is None else self._file.read_bytes(), type=_Found)
        except (OSError, msgspec.DecodeError):
            return None
        is_same = (found.broker, found.agent, found.version) == (self._broker, self._agent, int(Version.V311))
        return found.at if is_same else None
