"""Where other processes of the device leave requests for the running agent: files in ``requests``.

A request is one JSON file, renamed in; its answer is a file beside it. Files need no port and no further thread, and
whoever may write into the state folder may ask.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from shoal_agent.errors import NoModelError
from shoal_agent.ports import Clock
from shoal_agent.updating.updater import RollBackRequest

_SHOW_S = 1.0
_log = logging.getLogger(__name__)


class _Wish(msgspec.Struct):
    slot: str
    reason: str


class _Answer(msgspec.Struct):
    error: str | None = None


class Desk:
    """The running agent's side.

    Args:
        folder: ``requests`` in the state folder.
        show: Leaves the status where others find it.
        monotonic: Seconds for durations.
    """

    def __init__(self, folder: Path, *, show: Callable[[], None], monotonic: Clock) -> None:
        self._folder = folder
        self._show = show
        self._monotonic = monotonic
        self._shown_at = float("-inf")
        folder.mkdir(mode=0o700, exist_ok=True)

    def requests(self) -> Iterator[tuple[RollBackRequest, Path]]:
        """Return what was asked for, each with the path of its file.

        A file is deleted before its request is carried out: on a disk that then takes no answer, the request would else
        be carried out again at every look. One that can't be deleted is left alone.
        """
        for path in sorted(self._folder.glob("*.wish")):
            try:
                raw = path.read_bytes()
                path.unlink()
                wish = msgspec.json.decode(raw, type=_Wish)
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("the request %s is not carried out: %s", path.name, error)
                continue
            yield RollBackRequest(wish.slot, wish.reason), path

    def has_requests(self) -> bool:
        """Tell whether somebody waits, so that a long step is given up; cheap enough to ask between two reads."""
        try:
            return any(path.suffix == ".wish" for path in self._folder.iterdir())
        except OSError:
            return False

    def show(self) -> None:
        """Let others see how things stand, at most once a second; a full disk is no reason to fail."""
        if self._monotonic() - self._shown_at < _SHOW_S:
            return
        self._shown_at = self._monotonic()
        try:
            self._show()
        except OSError as error:
            _log.debug("the status could not be left: %s", error)

    def answer(self, request: RollBackRequest, path: Path) -> None:
        """Say what came of a request; a full disk is no reason to fail."""
        answer = msgspec.json.encode(_Answer(str(request.error) if request.error else None))
        try:
            _write(path.with_suffix(".answer"), answer)
        except OSError as error:
            _log.warning("the answer to %s could not be left: %s", path.name, error)


def ask_roll_back(folder: Path, slot: str, *, reason: str, timeout_s: float, clock: Clock = time.monotonic) -> None:
    """Ask the agent that runs on a state folder to roll back, and wait for its answer.

    Raises:
        NoModelError: It refused, or gave no answer in time.
    """
    path = folder / "requests" / f"{secrets.token_hex(6)}.wish"
    _write(path, msgspec.json.encode(_Wish(slot, reason)))
    answer = path.with_suffix(".answer")
    deadline = clock() + timeout_s
    while clock() < deadline:
        if answer.exists():
            error = msgspec.json.decode(answer.read_bytes(), type=_Answer).error
            answer.unlink()
            if error is not None:
                raise NoModelError(error, slot=slot)
            return
        time.sleep(0.1)
    path.unlink(missing_ok=True)
    raise NoModelError(f"the agent gave no answer within {timeout_s:g} s", slot=slot)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
