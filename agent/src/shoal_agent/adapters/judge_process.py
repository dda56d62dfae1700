"""A judge in a child process, so that its libraries, and bytes that nobody has verified, stay out of the agent.

Owns starting and bounding the child (`shoal_agent.adapters.judge_child`), fetching for it, and what its ending means. A
child answers one question. The documents that it wants are fetched here and handed in: it has no network and no
credentials. One that ends, falls silent or says nonsense has judged nothing, and is asked again later; what it had
stored by then is what an agent that was killed there would have left.
"""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from shoal_agent.adapters import child
from shoal_agent.adapters.http_client import read_bounded
from shoal_agent.adapters.judge import Verdict
from shoal_agent.errors import JudgeError, ParcelError, TransportError
from shoal_agent.ports import DocumentSource
from shoal_protocol.errors import (
    ContentError,
    DigestMismatchError,
    ExpiredError,
    RollbackError,
    ShoalError,
    TrustError,
    UnsignedError,
)

if TYPE_CHECKING:
    from subprocess import Popen

CHILD = Path(__file__).with_name("judge_child.py")
SILENCE_S = 120.0
"""So long a child may think without a word; it needs 0.4 s on a fast machine."""

MAX_DOCUMENT_BYTES = 8 << 20
"""Of one document; the TUF client itself takes less."""

_ERRORS: dict[str, type[ShoalError]] = {
    kind.code: kind
    for kind in (
        ContentError, DigestMismatchError, ExpiredError, JudgeError, ParcelError, RollbackError, TransportError,
        TrustError, UnsignedError,
    )
}  # fmt: skip


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a child is asked: a method of `Judge` and its arguments.

    Attributes:
        name: Of the method.
        folder: Cache of the TUF client.
        pinned: The root that all else is verified from.
        now_ms: Reference time for expiry.
        url: Of the source of documents.
        envelope: To be opened.
        kind: Which type its payload must have.
        what: What it is called in errors.
    """

    name: Literal["refresh", "recall", "time_keys", "open"]
    folder: str
    pinned: bytes
    now_ms: int = 0
    url: str = ""
    envelope: bytes = b""
    kind: str = ""
    what: str = ""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on its way through a pipe.

    Attributes:
        message: What was expected and what came.
        code: Of one of our errors; empty: the system's, see `errno`.
        hint: What to do.
        errno: Of the system.
    """

    message: str
    code: str = ""
    hint: str = ""
    errno: int = 0

    @classmethod
    def of(cls, error: ShoalError | OSError) -> Fault:
        """Return what to send of an error."""
        if isinstance(error, ShoalError):
            return cls(error.message, error.code, error.hint)
        return cls(error.strerror or str(error), errno=error.errno or errno.EIO)

    def error(self) -> ShoalError | OSError:
        """Return the error again."""
        if self.errno:
            return OSError(self.errno, self.message)
        return _ERRORS.get(self.code, JudgeError)(self.message, hint=self.hint)


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written before a document that a child wanted.

    Attributes:
        status: Of the answer, as in HTTP.
        size: Bytes of the document, which follow.
        fault: Why none came.
    """

    status: int = 0
    size: int = 0
    fault: Fault | None = None


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of a child: a document that it wants, or its one answer."""

    fetch: str | None = None
    verdict: Verdict | None = None
    fault: Fault | None = None


_NOTHING = Fault("signatures can't be judged now: the child process said nothing to the question")


class ChildJudge:
    """Judges in child processes, one for each question.

    Args:
        folder: Cache of the TUF client.
        silence_s: How long one may think without a word.
    """

    def __init__(self, folder: Path, *, silence_s: float = SILENCE_S) -> None:
        self._folder = str(folder)
        self._silence_s = silence_s

    def refresh(self, source: DocumentSource, *, pinned: bytes, now_ms: int) -> Verdict:
        """See `shoal_agent.adapters.judge.Judge`."""
        asked = Question(name="refresh", folder=self._folder, pinned=pinned, now_ms=now_ms, url=source.url)
        return self._ask(asked, source)

    def recall(self, *, pinned: bytes) -> Verdict:
        """See `shoal_agent.adapters.judge.Judge`."""
        return self._ask(Question(name="recall", folder=self._folder, pinned=pinned))

    def time_keys(self, *, pinned: bytes) -> Verdict:
        """See `shoal_agent.adapters.judge.Judge`."""
        return self._ask(Question(name="time_keys", folder=self._folder, pinned=pinned))

    def open(self, raw: bytes, kind: str, *, what: str, pinned: bytes) -> Verdict:
        """See `shoal_agent.adapters.judge.Judge`."""
        asked = Question(name="open", folder=self._folder, pinned=pinned, envelope=raw, kind=kind, what=what)
        return self._ask(asked)

    def _ask(self, question: Question, source: DocumentSource | None = None) -> Verdict:
        try:
            process = child.start(CHILD)
        except OSError as error:
            raise JudgeError(f"signatures can't be judged now: no process can be started: {error}") from error
        with process:
            try:
                _hand(process, child.first_order() + msgspec.json.encode(question) + b"\n")
                while (said := self._line(process)).fetch is not None:
                    _hand(process, *_fetched(source, said.fetch))
            finally:
                child.kill(process)
                _close(process)
        if said.verdict is None:
            raise (said.fault or _NOTHING).error()
        return said.verdict

    def _line(self, process: Popen[bytes]) -> Said:
        """Return what the child says next.

        Raises:
            JudgeError: It ended, fell silent, or said something that no child says.
        """
        assert process.stdout is not None
        silent = threading.Timer(self._silence_s, child.kill, (process,))
        silent.start()
        try:
            line = process.stdout.readline()
        finally:
            silent.cancel()
        try:
            return msgspec.json.decode(line, type=Said)
        except msgspec.DecodeError as error:
            child.kill(process)
            how = child.how_it_ended(process.wait())
            raise JudgeError(f"signatures can't be judged now: the child process ended by {how}") from error


def _close(process: Popen[bytes]) -> None:
    """Close the child's input, with what it did not read any more."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _hand(process: Popen[bytes], *parts: bytes) -> None:
    """Write to the child; one that has ended says so when its answer is read."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        for part in parts:
            process.stdin.write(part)
        process.stdin.flush()


def _fetched(source: DocumentSource | None, url: str) -> tuple[bytes, bytes]:
    """Fetch a document that the child wants; return what it is handed."""
    try:
        if source is None:
            raise JudgeError(f"{url} was wanted for a question that needs no document")
        with source.open("GET", url) as answer:
            status, body = answer.status, read_bounded(answer, MAX_DOCUMENT_BYTES)
    except (ShoalError, OSError) as error:
        return msgspec.json.encode(Document(fault=Fault.of(error))) + b"\n", b""
    return msgspec.json.encode(Document(status=status, size=len(body))) + b"\n", body
