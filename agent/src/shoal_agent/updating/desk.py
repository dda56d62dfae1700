"""Where other processes of the device leave requests for the running agent: files in ``requests``.

A request is one JSON file, renamed in; its answer is a file beside it. Files need no port and no further thread, and
whoever may write into the state folder may ask.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from shoal_agent.errors import NoModelError, ParcelError
from shoal_agent.ports import Clock
from shoal_agent.updating.requests import ExportRequest, ImportRequest, Request, RollBackRequest
from shoal_protocol.errors import ShoalError

_SHOW_S = 1.0
_PARCEL, _MAIL, _ANSWER, _TEMPORARY = ".parcel", ".mail", ".answer", ".tmp"
_FORGOTTEN_S = 86_400.0
"""Age from which what a request left behind is nobody's: its asker was ended before it could tidy up."""

_log = logging.getLogger(__name__)


class _Wish(msgspec.Struct, kw_only=True, omit_defaults=True):
    kind: str = "rollback"
    slot: str = ""
    reason: str = ""


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came of a request.

    Attributes:
        error: Why it was refused; none: it was carried out.
        code: Of the error.
        hint: What to do about it.
        told: What to tell of it.
    """

    error: str | None = None
    code: str = ""
    hint: str = ""
    told: dict[str, Any] = msgspec.field(default_factory=dict)


class Desk:
    """The running agent's side.

    Args:
        folder: ``requests`` in the state folder.
        show: Leaves the status where others find it.
        monotonic: Seconds for durations.
        clock: Seconds UTC.
    """

    def __init__(self, folder: Path, *, show: Callable[[], None], monotonic: Clock, clock: Clock = time.time) -> None:
        self._folder = folder
        self._show = show
        self._monotonic = monotonic
        self._shown_at = float("-inf")
        self._unreadable: set[str] = set()
        folder.mkdir(mode=0o700, exist_ok=True)
        _tidy(folder, before=clock() - _FORGOTTEN_S)

    def requests(self) -> Iterator[tuple[Request, Path]]:
        """Return what was asked for, each with the path of its file.

        A file is deleted before its request is carried out: on a disk that then takes no answer, the request would else
        be carried out again at every look. One that can't be read or deleted is left alone from then on.
        """
        for path in sorted(filter(self._is_wish, self._folder.glob("*"))):
            try:
                raw = path.read_bytes()
                path.unlink()
                wish = msgspec.json.decode(raw, type=_Wish)
            except FileNotFoundError:  # its asker took it back
                continue
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("the request %s is not carried out: %s", path.name, error)
                if isinstance(error, OSError):
                    self._unreadable.add(path.name)
                continue
            yield _request(wish, path), path

    def has_requests(self) -> bool:
        """Tell whether somebody waits, so that a long step is given up; cheap enough to ask between two reads."""
        try:
            return any(self._is_wish(path) for path in self._folder.iterdir())
        except OSError:
            return False

    def _is_wish(self, path: Path) -> bool:
        return path.suffix == ".wish" and path.name not in self._unreadable

    def show(self) -> None:
        """Let others see how things stand, at most once a second; a full disk is no reason to fail."""
        if self._monotonic() - self._shown_at < _SHOW_S:
            return
        self._shown_at = self._monotonic()
        try:
            self._show()
        except OSError as error:
            _log.debug("the status could not be left: %s", error)

    def answer(self, request: Request, path: Path) -> None:
        """Say what came of a request; a full disk is no reason to fail."""
        error = request.error
        answer = Answer(told=request.told)
        if isinstance(error, ShoalError):
            answer = Answer(error=error.message, code=error.code, hint=error.hint)
        elif error is not None:
            answer = Answer(error=str(error), code="disk")
        try:
            _write(path.with_suffix(_ANSWER), msgspec.json.encode(answer))
        except OSError as error:
            _log.warning("the answer to %s could not be left: %s", path.name, error)


def ask_roll_back(folder: Path, slot: str, *, reason: str, timeout_s: float) -> None:
    """Ask the agent that runs on a state folder to roll back, and wait for its answer.

    Raises:
        NoModelError: It refused, or gave no answer in time.
    """
    path = _place(folder)
    answer = _ask(path, _Wish(slot=slot, reason=reason), timeout_s=timeout_s)
    if answer is None:
        raise NoModelError(_silence(timeout_s), slot=slot)
    if answer.error is not None:
        raise NoModelError(answer.error, slot=slot)


def ask_import(folder: Path, parcel: Path, *, timeout_s: float) -> dict[str, Any]:
    """Ask the agent that runs on a state folder to take a parcel in; returns what it tells of it.

    The parcel is copied into the state folder first: a hardened service sees few other places.

    Raises:
        ParcelError: It refused, or gave no answer in time.
        OSError: There is no room for the copy.
    """
    import shutil  # noqa: PLC0415 - the agent at the other end has no use for it

    path = _place(folder)
    copy = path.with_suffix(_PARCEL)
    try:
        shutil.copyfile(parcel, copy)
        copy.chmod(0o644)  # whatever the asker's umask: the agent may be another user; the folder lets in nobody else
        answer = _ask(path, _Wish(kind="import"), timeout_s=timeout_s)
        if answer is not None and answer.error is not None:  # told by the name that was given here
            answer.error = re.sub(rf"\S*{re.escape(copy.name)}", str(parcel), answer.error)
        return _told(answer, timeout_s=timeout_s)
    finally:
        copy.unlink(missing_ok=True)


def ask_export(folder: Path, target: Path, *, timeout_s: float) -> dict[str, Any]:
    """Ask the agent that runs on a state folder to write mail, and fetch it; returns what it tells of it.

    Raises:
        ParcelError: It refused, or gave no answer in time.
        OSError: The mail can't be fetched.
    """
    import shutil  # noqa: PLC0415 - the agent at the other end has no use for it

    path = _place(folder)
    mail = path.with_suffix(_MAIL)
    try:
        told = _told(_ask(path, _Wish(kind="export"), timeout_s=timeout_s), timeout_s=timeout_s)
        shutil.copyfile(mail, target)
        return told
    finally:
        mail.unlink(missing_ok=True)


def _request(wish: _Wish, path: Path) -> Request:
    match wish.kind:
        case "import":
            return ImportRequest(path=path.with_suffix(_PARCEL))
        case "export":
            return ExportRequest(path=path.with_suffix(_MAIL))
    return RollBackRequest(slot=wish.slot, reason=wish.reason)


def _place(folder: Path) -> Path:
    return folder / "requests" / f"{secrets.token_hex(6)}.wish"


def _ask(path: Path, wish: _Wish, *, timeout_s: float) -> Answer | None:
    """Leave a wish and return the answer; none came in time."""
    answer = path.with_suffix(_ANSWER)
    try:
        _write(path, msgspec.json.encode(wish))
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if answer.exists():
                return msgspec.json.decode(answer.read_bytes(), type=Answer)
            time.sleep(0.1)
        return None
    finally:  # also when it was interrupted: nobody waits for it any more
        for file in (path, answer):
            file.unlink(missing_ok=True)


def _told(answer: Answer | None, *, timeout_s: float) -> dict[str, Any]:
    if answer is None:
        raise ParcelError(_silence(timeout_s), hint="look at its log: is it in a long self-test?")
    if answer.error is not None:
        raise ParcelError(answer.error, hint=answer.hint)
    return answer.told


def _silence(timeout_s: float) -> str:
    return f"the agent gave no answer within {timeout_s:g} s"


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(_TEMPORARY)
    temporary.write_bytes(data)
    temporary.chmod(0o644)
    temporary.replace(path)


def _tidy(folder: Path, *, before: float) -> None:
    """Delete what requests left behind before a time, seconds UTC; what can't be deleted stays."""
    for path in folder.glob("*"):
        if path.suffix in {_PARCEL, _MAIL, _ANSWER, _TEMPORARY}:
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
            except OSError as error:
                _log.debug("%s stays: %s", path.name, error)
