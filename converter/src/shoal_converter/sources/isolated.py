"""Models from files: loaded by a child process only, programs among them only when the caller trusts them.

A pickle is a program. The child gets no credentials of this environment, no network, and none but the files that the
work is about; it converts, writes the finished bundle as an OCI layout, and is gone. This process then reads the layout
as it reads any bundle from outside. Owns the parent's side; `isolated_child` is the other, `confinement` what it gives
up.
"""

from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from shoal_converter.bundle import Bundle
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import (
    ConverterError,
    LibraryMissingError,
    NotIsolatedError,
    OutputExistsError,
    ParityError,
    SampleError,
    SourceError,
    UnsupportedModelError,
    UntrustedPickleError,
    UntrustedTypesError,
    VariantRefusedError,
)
from shoal_converter.lineage import project_folders
from shoal_converter.sources.model_file import Trust, kind_of
from shoal_protocol.errors import CallerError, ContentError, LocalError, ShoalError

_LONGEST_LINE = 64 << 20
"""Characters of one answer, so that a model that writes without end fills no memory here."""

_LONGEST_END_S = 5
"""Seconds for a child to end what it started, before it is killed."""

_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONHASHSEED",
    "OMP_NUM_THREADS",
    "SystemRoot",
)
_ERRORS: dict[str, type[ShoalError]] = {
    "LibraryMissingError": LibraryMissingError,
    "SampleError": SampleError,
    "SourceError": SourceError,
    "CallerError": CallerError,
    "OutputExistsError": OutputExistsError,
    "NotIsolatedError": NotIsolatedError,
    "UntrustedPickleError": UntrustedPickleError,
}


@dataclass(frozen=True)
class Examination:
    """What is asked of a model beside parity on the sample.

    Attributes:
        validation: File of rows that the model has never seen.
        segment_by: Columns to split figures by, of the validation file where there is one, else of the sample.
        variants: Forms to build beside the canonical one.
        budget: ``latency_budget_ms`` and ``memory_budget_bytes`` to declare.
        contract: What the features' values must be, in its written form, or ``auto``.
        reference: Whether the rows show how values are distributed.
    """

    validation: Path | None = None
    segment_by: Sequence[Sequence[str]] = ()
    variants: Sequence[str] = ()
    budget: Mapping[str, float] = field(default_factory=dict)
    contract: Mapping[str, Any] | Literal["auto"] | None = None
    reference: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return it as the child process takes it."""
        return {
            "validation": str(self.validation.resolve()) if self.validation else None,
            "segment_by": [list(names) for names in self.segment_by],
            "variants": list(self.variants),
            "budget": dict(self.budget),
            "contract": self.contract,
            "reference": self.reference,
        }


@dataclass(frozen=True, kw_only=True)
class PackRequest:
    """What is packed out of which files, and what is said of it.

    Attributes:
        path: The model; the caller has checked that it is trusted where it is a program.
        sample: File of the sample.
        target: Name of the target in it.
        tag: ``name:version``.
        tolerance: What counts as equal.
        float64_inputs: Feed floats in double.
        parent: Bundle whose grids are inherited.
        about: For the model card.
        licence: The licence's text.
        lineage: Added to the provenance.
        examination: What is asked of the model beside parity.
        trust: Whether code in the file may run, and whether it may where it can't be isolated.
        trusted_types: Types that a file of skops may hold beside those known.
    """

    path: Path
    sample: Path
    target: str | None
    tag: str
    tolerance: Tolerance
    float64_inputs: bool = False
    parent: Path | None = None
    about: str = ""
    licence: str = ""
    lineage: Mapping[str, str] = field(default_factory=dict)
    examination: Examination = Examination()
    trust: Trust | None = None
    trusted_types: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as the child process takes it: one flat object, with whole paths."""
        return {
            "path": str(self.path.resolve()),
            "sample": str(self.sample.resolve()),
            "target": self.target,
            "tag": self.tag,
            "tolerance": asdict(self.tolerance),
            "float64_inputs": self.float64_inputs,
            "parent": str(self.parent.resolve()) if self.parent else None,
            "about": self.about,
            "licence": self.licence,
            "lineage": dict(self.lineage),
            **self.examination.as_json(),
            "trust": self.trust,
            "trusted_types": list(self.trusted_types),
            "readable": [str(each.resolve()) for each in self.readable()],
        }

    def readable(self) -> Iterator[Path]:
        """Yield what the child has to read: the model with the files that belong to it, the data, and the project."""
        yield self.path
        if kind_of(self.path).runs_code(trust=self.trust):
            yield from self.path.parent.glob(f"{glob.escape(self.path.name)}_*")  # arrays beside an old joblib's pickle
        else:
            yield self.path.parent  # constants beside a graph
        yield self.sample
        yield from (each for each in (self.parent, self.examination.validation) if each)
        yield from project_folders(Path.cwd())


def pack_isolated(
    request: PackRequest, *, timeout_s: float = 3600, progress: Callable[[str], None] | None = None
) -> Bundle:
    """Pack a model file in a child process.

    Args:
        request: What to pack.
        timeout_s: How long it may take.
        progress: Called with each line that the child reports.

    Raises:
        SourceError: It doesn't load, or holds no fitted estimator.
        UnsupportedModelError: As `pack`.
        ParityError: As `pack`.
        SampleError: As `pack`.
    """
    with tempfile.TemporaryDirectory(prefix="shoal-pack-") as folder:
        output = Path(folder) / "bundle"
        files = {"output": str(output), "work": str(folder)}
        answer = _run(request.as_json() | files, progress or (lambda _: None), timeout_s=timeout_s)
        if "error" in answer:
            raise _error(answer["error"])
        bundle = Bundle.open(output)
        return replace(bundle, path=None, parity=answer.get("parity"), measured=answer.get("measured"))


def _run(request: Mapping[str, Any], progress: Callable[[str], None], *, timeout_s: float) -> dict[str, Any]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    late = threading.Event()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "shoal_converter.sources.isolated_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # without the terminal, into which it could type
    ) as child:
        alarm = threading.Timer(timeout_s, _end, [child], {"late": late})
        alarm.daemon = True
        alarm.start()
        try:
            answer = _answer(child, request, progress)
        except BaseException:
            _end(child)
            raise
        finally:
            alarm.cancel()
    if answer is None and late.is_set():
        raise LocalError(
            f"loading and packing the model took more than {timeout_s:g} s, and was ended",
            hint="give it longer by --timeout SECONDS, or a smaller sample",
        )
    if answer is None:
        raise LocalError(
            f"the child process that loaded the model died (exit code {child.returncode})",
            hint="a negative code is a signal: -9 means that memory ran out",
        )
    return answer


def _end(child: subprocess.Popen[str], *, late: threading.Event | None = None) -> None:
    """End the child and what it started: it ends its namespace itself when asked to, and is killed when it does not."""
    if late is not None:
        late.set()
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_LONGEST_END_S)
    if sys.platform == "win32":
        child.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _answer(
    child: subprocess.Popen[str], request: Mapping[str, Any], progress: Callable[[str], None]
) -> dict[str, Any] | None:
    """Send the request, pass progress on, and return the last word; none where the child died without one."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(json.dumps(request))
        child.stdin.close()
    answer: dict[str, Any] | None = None
    while line := child.stdout.readline(_LONGEST_LINE):
        message = _message(line)
        if "progress" in message:
            progress(str(message["progress"]))
        else:
            answer = message
    child.wait()
    return answer


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ContentError(f"the child process wrote something unexpected: {line[:100]!r}") from error
    if not isinstance(message, dict):
        raise ContentError(f"the child process wrote something unexpected: {line[:100]!r}")
    return message


def _error(fault: Mapping[str, Any]) -> Exception:
    kind, data = fault["kind"], fault.get("data") or {}
    if kind == "UnsupportedModelError":
        return UnsupportedModelError(str(data["step"]), str(data["why"]), str(data["way_round"]))
    if kind == "ParityError":
        return ParityError(fault["message"], step=str(data["step"]), report=data["report"], hint=fault["hint"])
    if kind == "UntrustedTypesError":
        return UntrustedTypesError(fault["message"].split(" holds types")[0], data["types"])
    if kind == "VariantRefusedError":
        form = str(data["variant"])
        return VariantRefusedError(form, fault["message"].removeprefix(f"variant {form}: "), figures=data["figures"])
    return _ERRORS.get(kind, ConverterError)(fault["message"], hint=fault["hint"])
