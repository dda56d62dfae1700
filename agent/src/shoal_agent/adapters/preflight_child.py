"""The child process of PREFLIGHT: sets its own limits, loads a stored bundle and runs its golden rows.

Started as a script by `shoal_agent.adapters.preflight` with ``python -I``; reads one request from standard input and
writes one JSON line for every stage that it reaches.

The memory limit is set when all libraries are there and before a byte of the model is read, to what the process has by
then and what the model is allowed: interpreter and libraries take more on a machine with more cores. It is on
RLIMIT_DATA: RLIMIT_AS also counts the address space that threads only reserve. The model is allowed no more than the
machine has available, and where that runs short all the same, the kernel is asked to take this process first.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

BYTES_PER_THREAD = 8 << 20
MEMINFO = Path("/proc/meminfo")


def main() -> None:
    """Answer one request."""
    order = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = order["path"]
    from shoal_agent.adapters.child import obey  # noqa: PLC0415 - its path came with the order

    answers = obey(order)
    request = json.loads(sys.stdin.buffer.read())
    _limit_time(request["limits"])
    _say(answers, stage="started")
    _say(answers, **_outcome(answers, request))


def _outcome(answers: IO[bytes], request: dict[str, Any]) -> dict[str, Any]:
    from shoal_agent.runtime.bundle_files import from_store  # noqa: PLC0415 - only after the limits are set
    from shoal_agent.runtime.engine import import_onnxruntime, ran_out_of_memory  # noqa: PLC0415
    from shoal_agent.runtime.model import LoadedModel  # noqa: PLC0415
    from shoal_protocol.errors import ShoalError  # noqa: PLC0415

    import_onnxruntime()
    limit = _limit_memory(request)
    _say(answers, stage="imported")
    try:
        manifest, blobs = _places(request)
        files = from_store(request["digest"], manifest.read_bytes(), lambda blob: (blobs / _name(blob)).read_bytes())
        limits = request["limits"]
        model = LoadedModel.load(
            files, variant=limits["variant"], threads=limits["threads"], providers=limits["providers"]
        )
        _say(answers, stage="loaded")
        if model.golden is None:
            return _done(passed=True, rows=0.0)
        return _compare(model.self_test(), limits["latency_budget_ms"])
    except ShoalError as error:
        return _done(passed=False, code=error.code, message=error.message)
    except OSError as error:  # a file of the store, not the model: onnxruntime raises its own errors
        return _done(passed=False, code="disk", message=f"the bundle can't be read: {error}", transient=True)
    except Exception as error:  # noqa: BLE001 - whatever a model does at its golden rows is the answer
        if ran_out_of_memory(error):
            return _done(passed=False, code=limit.code, message=f"{limit.message}: {error}", transient=limit.is_short)
        return _done(passed=False, code="preflight_run", message=f"the golden rows can't be run: {error}")


def _compare(test: Any, budget_ms: float | None) -> dict[str, Any]:
    measured = {"rows": float(test.rows), "p95_ms": test.p95_ms, "max_abs_error": test.max_abs_error}
    if not test.passed:
        return _done(passed=False, code="preflight_golden", message="; ".join(test.faults[:4]), **measured)
    if budget_ms is not None and test.p95_ms > budget_ms:
        message = f"one row takes {test.p95_ms:.3g} ms here (p95), the bundle allows {budget_ms:g} ms"
        return _done(passed=False, code="preflight_latency", message=message, **measured)
    return _done(passed=True, **measured)


def _done(
    *, passed: bool, code: str = "", message: str = "", transient: bool = False, **measured: float
) -> dict[str, Any]:
    numbers = {
        name: value for name, value in {**measured, "rss_bytes": _peak_bytes()}.items() if abs(value) < float("inf")
    }
    ending = {"stage": "done", "passed": passed, "code": code, "message": message[:1000]}
    return {**ending, "transient": transient, "measured": numbers}


def _peak_bytes() -> float:
    """Return the most memory that was resident: not ru_maxrss, which a process inherits from who started it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next((float(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), 0.0)


def _limit_time(limits: dict[str, Any]) -> None:
    cpu_s = int(limits["wall_s"] * limits["threads"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


class _Limit(NamedTuple):
    """What to say of a model that reaches the limit of memory.

    A device that is short of memory now may have it later, which says nothing against the model.
    """

    code: str
    message: str
    is_short: bool


def _limit_memory(request: dict[str, Any]) -> _Limit:
    """Set the limit: what the model is allowed, or what the device has available where that is less."""
    from shoal_agent.adapters.child import data_bytes  # noqa: PLC0415 - their path came with the order
    from shoal_agent.domain.slot import MEMORY_SHORT  # noqa: PLC0415 - likewise
    from shoal_protocol.bundle.memory import memory_allowance  # noqa: PLC0415

    limits = request["limits"]
    allowance, available = memory_allowance(_model_bytes(request), limits["memory_bytes"]), _available_bytes()
    is_short = available is not None and available < allowance
    most = available if available is not None and is_short else allowance
    data = data_bytes() + most + BYTES_PER_THREAD * (limits["threads"] - 1)
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    whose = "this device has available now" if is_short else "it is allowed"
    code = MEMORY_SHORT if is_short else "over_budget"
    return _Limit(code, f"the model needs more memory than the {most >> 20} MB that {whose}", is_short)


def _model_bytes(request: dict[str, Any]) -> int:
    """Return the size of the form of the model that is tested; 0 where it isn't there, which loading it says."""
    from shoal_protocol.bundle.layout import FILEPATH_ANNOTATION  # noqa: PLC0415 - its path came with the order

    manifest, blobs = _places(request)
    for layer in json.loads(manifest.read_bytes())["layers"]:
        if layer.get("annotations", {}).get(FILEPATH_ANNOTATION) == request["limits"]["variant"]:
            with suppress(OSError):
                return (blobs / _name(layer["digest"])).stat().st_size
    return 0


def _available_bytes() -> int | None:
    """Return what the machine can give without swapping: ``MemAvailable``, see proc(5); none: it doesn't say."""
    with suppress(OSError):
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _say(answers: IO[bytes], **fields: Any) -> None:
    answers.write(json.dumps(fields).encode() + b"\n")
    answers.flush()


def _places(request: dict[str, Any]) -> tuple[Path, Path]:
    folder = Path(request["folder"])
    return folder / "bundles" / f"{_name(request['digest'])}.json", folder / "blobs"


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")


if __name__ == "__main__":
    main()
