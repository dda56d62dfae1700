"""`shoal-convert check`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from shoal_converter.bundle import Bundle
from shoal_converter.errors import EXIT_FAILED, EXIT_OK, EXIT_PARITY
from shoal_converter.gates import Gate, check, holds, parse_requirement
from shoal_converter.terminal import Terminal
from shoal_converter.variants import here
from shoal_protocol.errors import CallerError
from shoal_protocol.junit import Case, Outcome, junit_xml

_OUTCOMES: dict[str, Outcome] = {"pass": "passed", "fail": "failed", "skipped": "skipped"}


def run(terminal: Terminal, bundle: Bundle, *, required: Sequence[str], junit: Path | None) -> int:
    """Make every gate, tell what came of each, and return the exit code: 3 where answers differ, 1 for the others.

    Raises:
        CallerError: A requirement is none, or the report can't be written.
    """
    from onnxruntime import __version__ as runtime  # noqa: PLC0415 - heavy

    requirements = [parse_requirement(text) for text in required]
    gates = check(bundle, requirements=requirements)
    if junit is not None:
        _write(junit, bundle, gates)
    if terminal.json_wanted:
        terminal.json(
            {
                "ref": str(bundle.ref),
                "digest": bundle.digest,
                "ok": holds(gates),
                "here": {"platform": here(), "onnxruntime": runtime, "python": platform.python_version()},
                "gates": [gate.as_json() for gate in gates],
            }
        )
    else:
        terminal.facts([("bundle", str(bundle.ref)), ("digest", bundle.digest), ("here", here())])
        shown = {"pass": "pass", "fail": "FAIL", "skipped": "-"}
        terminal.table(("GATE", "", "FOUND"), [(gate.gate, shown[gate.verdict], gate.found) for gate in gates])
    if holds(gates):
        return EXIT_OK
    return EXIT_PARITY if any(gate.is_parity and gate.verdict == "fail" for gate in gates) else EXIT_FAILED


def _write(path: Path, bundle: Bundle, gates: Sequence[Gate]) -> None:
    cases = [
        Case(group=str(bundle.ref), name=gate.gate, outcome=_OUTCOMES[gate.verdict], message=gate.found)
        for gate in gates
    ]
    try:
        path.write_bytes(junit_xml(f"shoal-convert check {bundle.ref}", cases))
    except OSError as error:
        raise CallerError(f"the report {path} can't be written: {error.strerror or error}") from error
