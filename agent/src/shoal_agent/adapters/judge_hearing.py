"""What the child process that judges signatures does: one question, one answer.

Read and written are `Question`, `Document` and `Said` of `shoal_agent.adapters.judge_process`, one JSON line each; the
bytes of a document follow its line. The limits hold before any of them is read: what a document does to its reader, it
does to this process.
"""

from __future__ import annotations

import io
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from shoal_agent.adapters import tuf_client  # noqa: F401 - before its memory is limited
from shoal_agent.adapters.child import data_bytes, obey
from shoal_agent.adapters.judge import InProcessJudge, Verdict
from shoal_agent.adapters.judge_process import Document, Fault, Question, Said
from shoal_agent.errors import JudgeError
from shoal_protocol.errors import ShoalError

CPU_S = 120
MEMORY_BYTES = 256 << 20
"""Over what libraries take; the largest list that is accepted needs a quarter of it."""


def hear(order: Mapping[str, Any]) -> None:
    """Answer the question that waits on standard input.

    Args:
        order: The first line of it, see `shoal_agent.adapters.child.first_order`.
    """
    answers = obey(order)
    _limit()
    question = msgspec.json.decode(sys.stdin.buffer.readline(), type=Question)
    _tell(answers, _judged(question, answers))


def _judged(question: Question, answers: IO[bytes]) -> Said:
    try:
        return Said(verdict=_verdict(question, answers))
    except (ShoalError, OSError) as error:
        return Said(fault=Fault.of(error))
    except Exception as error:  # noqa: BLE001 - whatever a document does to its reader is the answer
        return Said(fault=Fault(f"what came can't be judged: {type(error).__name__}: {error}"[:1000], JudgeError.code))


def _verdict(question: Question, answers: IO[bytes]) -> Verdict:
    judge, pinned = InProcessJudge(Path(question.folder)), question.pinned
    if question.name == "refresh":
        return judge.refresh(_Pipe(question.url, answers), pinned=pinned, now_ms=question.now_ms)
    if question.name == "open":
        return judge.open(question.envelope, question.kind, what=question.what, pinned=pinned)
    return judge.recall(pinned=pinned) if question.name == "recall" else judge.time_keys(pinned=pinned)


class _Answer(io.BytesIO):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(body)
        self.status = status


class _Pipe:
    """The agent, as a source of documents."""

    def __init__(self, url: str, answers: IO[bytes]) -> None:
        self.url = url
        self._answers = answers

    @contextmanager
    def open(self, method: str, path: str) -> Iterator[_Answer]:  # noqa: ARG002 - as of an HTTP client
        """Ask for a document and wait for it."""
        _tell(self._answers, Said(fetch=path))
        document = msgspec.json.decode(sys.stdin.buffer.readline(), type=Document)
        if document.fault is not None:
            raise document.fault.error()
        yield _Answer(document.status, sys.stdin.buffer.read(document.size))


def _tell(answers: IO[bytes], said: Said) -> None:
    answers.write(msgspec.json.encode(said) + b"\n")
    answers.flush()


def _limit() -> None:
    data = data_bytes() + MEMORY_BYTES
    for kind, most in ((resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, data)):
        resource.setrlimit(kind, (most, most))
