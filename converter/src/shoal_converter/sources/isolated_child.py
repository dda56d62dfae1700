"""The child process that loads a model: `python -P -m shoal_converter.sources.isolated_child`, request on stdin.

It gives up network, files and other processes before it loads anything, keeps its real standard output for its answer
(so that what a model prints can't corrupt it), and reports progress and result as lines of JSON.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from shoal_converter.sources.sample_file import Table


def main() -> int:
    """Serve one request."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    lacking = _confined(request)

    def tell(line: str) -> None:
        _write(answers, {"progress": line})

    try:
        _check_isolated(request, lacking)
        tell(f"loading {Path(request['path']).name} in a child process {_reaching(lacking)}")
        _write(answers, _pack(request, tell))
    except Exception as error:  # noqa: BLE001 - whatever a pickle raises is told to the parent
        _write(answers, {"error": _fault(error)})
    answers.flush()
    # A pickle may leave threads behind; the answer is out, so nothing is waited for.
    os._exit(0)


def _confined(request: dict[str, Any]) -> tuple[str, ...]:
    if sys.platform != "linux":
        return ("network", "files")
    from shoal_converter.confinement.reach import confine  # noqa: PLC0415 - Linux only

    return confine(readable=[Path(path) for path in request["readable"]], work=Path(request["work"]))


def _check_isolated(request: dict[str, Any], lacking: tuple[str, ...]) -> None:
    from shoal_converter.errors import NotIsolatedError  # noqa: PLC0415
    from shoal_converter.sources.model_file import kind_of  # noqa: PLC0415

    path = Path(request["path"])
    if lacking and request["trust"] != "unisolated" and kind_of(path).runs_code(trust=request["trust"]):
        raise NotIsolatedError(
            f"{path.name} runs code when it is loaded, and this system does not let it be shut off from "
            + " and ".join(lacking),
            hint="if you trust it with them, say --trust=unisolated; Linux 5.13 and newer can shut it off, in "
            "containers unless their security profile forbids landlock and seccomp",
        )


def _reaching(lacking: tuple[str, ...]) -> str:
    shut = [what for what in ("network", "files") if what not in lacking]
    words = {"network": "network", "files": "your other files"}
    without = f"without {' and '.join(words[what] for what in shut)}" if shut else ""
    within = f"(this system leaves it {' and '.join(words[what] for what in lacking)})" if lacking else ""
    return f"{without} {within}".strip()


def _write(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _pack(request: dict[str, Any], tell: Any) -> dict[str, Any]:
    from shoal_converter.domain.parity import Tolerance  # noqa: PLC0415
    from shoal_converter.pack_options import PackOptions  # noqa: PLC0415
    from shoal_converter.packing import pack  # noqa: PLC0415
    from shoal_converter.sources.model_file import load_model  # noqa: PLC0415
    from shoal_converter.sources.sample_file import read_table  # noqa: PLC0415

    path = Path(request["path"])
    model = load_model(path, trust=request["trust"], trusted_types=request["trusted_types"])

    sample = Path(request["sample"])
    table = read_table(sample, target=request["target"])
    unseen = Path(request["validation"]) if request["validation"] else None
    judged = read_table(unseen, target=request["target"]) if unseen else None
    names = [name for grouping in request["segment_by"] for name in grouping]
    if judged is not None and unseen is not None:
        judged, columns = judged.split_by(names, model, path=unseen)
        table = table.without(names, model)
    else:
        table, columns = table.split_by(names, model, path=sample)
    options = PackOptions(
        tolerance=Tolerance(**request["tolerance"]),
        float64_inputs=request["float64_inputs"],
        about=request["about"],
        licence=request["licence"],
        lineage=request["lineage"],
        source=path,
        validation=None if judged is None else _rows(judged, model),
        validation_y=None if judged is None else judged.target,
        segments=columns,
        segment_by=tuple(tuple(grouping) for grouping in request["segment_by"]),
        variants=tuple(request["variants"]),
        contract=request["contract"],
        reference=request["reference"],
        **request["budget"],
    )
    bundle = pack(
        model,
        sample=_rows(table, model),
        y=table.target,
        tag=request["tag"],
        output=request["output"],
        parent=request["parent"],
        options=options,
        progress=tell,
    )
    return {"parity": bundle.parity, "measured": bundle.measured}


def _rows(table: Table, model: Any) -> Any:
    """Return a file's rows as the model takes them."""
    from shoal_converter.sources.boosting.models import is_boosting  # noqa: PLC0415
    from shoal_converter.sources.native_file import typed_rows  # noqa: PLC0415
    from shoal_converter.sources.tensor_model import TensorModel  # noqa: PLC0415
    from shoal_converter.sources.torch_source import is_torch  # noqa: PLC0415

    if isinstance(model, TensorModel):
        return table.tensors_for([each.name for each in model.inputs])
    if is_torch(model):
        return table.arrays_for(inspect.signature(model.forward).parameters)
    rows = table.rows_for(model)
    return typed_rows(model, rows) if is_boosting(model) else rows


def _fault(error: Exception) -> dict[str, Any]:
    from shoal_protocol.errors import ShoalError  # noqa: PLC0415

    if isinstance(error, ShoalError):
        return {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "data": json.loads(json.dumps(error.data, default=str)),
        }
    traceback.print_exception(error)
    return {
        "kind": "ConverterError",
        "message": f"packing failed in the child process: {type(error).__name__}: {error}",
        "hint": "the traceback is above; if the model is an ordinary one, report it",
        "data": {},
    }


if __name__ == "__main__":
    sys.exit(main())
