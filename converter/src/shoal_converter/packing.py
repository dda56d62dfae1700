"""From a trained model and a sample to a verified, reproducible bundle: the shell around the pure parts.

Owns the order of work: convert and prove, measure, write the documents, compute the digest, state where it comes from.
What is inside the digest is `documents`'s; time, host and paths go into the statements beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shoal_converter.bundle import Bundle
from shoal_converter.conversion import Options, convert_rows
from shoal_converter.documents import build_bundle
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import MemoryBudgetError
from shoal_converter.lineage import gather, measurement_statement, parity_statement, provenance_statement
from shoal_converter.measurement import Cost
from shoal_converter.onnx_runtime import Runner
from shoal_converter.pack_options import PackOptions
from shoal_converter.sample import Sample
from shoal_converter.sbom import sbom_statement
from shoal_converter.sources.estimator import framework_of
from shoal_converter.sources.kinds import checked_model, rows_in
from shoal_converter.sources.tensor_model import TensorModel
from shoal_converter.tensor_proof import converted
from shoal_converter.variants import Built, build_variants, cost_of, here, variant_line
from shoal_converter.workpiece import Workpiece, check_truth, check_width, convert_and_prove
from shoal_protocol.bundle.memory import memory_allowance
from shoal_protocol.errors import CallerError
from shoal_protocol.profile.grid import FEW_VALUES
from shoal_protocol.refs import parse_ref

Progress = Callable[[str], None]

_FEW_ROWS = 100


def to_onnx(model: Any, sample: Any, options: Options | None = None) -> bytes:
    r"""Convert a fitted estimator to canonical ONNX that is proven to answer alike on the sample.

    Args:
        model: Fitted estimator or pipeline of scikit-learn, or with its interface; a booster of XGBoost or LightGBM,
            or a CatBoost model; an ONNX model (path, bytes or ModelProto); a
            Module or ExportedProgram of PyTorch.
        sample: Rows like those that it was trained on: a 2-D array gives one ``[N, F]`` input ``x``, a list of texts
            one ``[N, 1]``, a pandas DataFrame one ``[N, 1]`` input a column (float32, int64 or string). Inputs
            are float64 only where float32 ones give other answers. For an ONNX model arrays by the names of its inputs,
            or one array; its inputs and outputs keep their names and types.
        options: skl2onnx's, ``{id(estimator): {...}}``.

    Returns:
        A serialised ONNX model (IR <= 10, ai.onnx <= 21, ai.onnx.ml 3). Outputs are tensors, the label first and named
        ``label``, then ``probabilities`` or ``scores``; a regressor gives ``value``, a transformer ``transformed``.

    Raises:
        UnsupportedModelError: A step has no exact form in ONNX; names the step and a way round.
        ParityError: The ONNX model answers otherwise than its source; names the first step that differs.
        SampleError: The sample is missing or doesn't fit.
        SourceError: The model is no fitted estimator.

    >>> from sklearn.linear_model import LinearRegression
    >>> model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    >>> to_onnx(model, [[0.0], [1.0], [2.0]])[:1]
    b'\x08'
    """
    model = checked_model(model, sample)
    if isinstance(model, TensorModel):
        return converted(model, sample, tolerance=Tolerance())[2].onnx
    return convert_rows(model, sample, options=options)[1].onnx


def pack(
    model: Any,
    *,
    sample: Any,
    tag: str,
    y: Any = None,
    output: Path | str | None = None,
    parent: Bundle | Path | str | None = None,
    options: PackOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Turn a fitted estimator into a bundle.

    Args:
        model: As `to_onnx` takes it.
        sample: Rows like those that it was trained on; see `to_onnx`. They prove parity, give the golden rows, and
            their distribution becomes the reference that the fleet is compared with.
        tag: ``name:version``, for example ``quality:1.4.0``.
        y: Labels or values of the sample's rows: makes accuracy, calibration and importance mean something.
        output: Folder, or file ending in ``.tar``, to write the bundle to.
        parent: An earlier version, or where it is: its grids are inherited, so that the two stay comparable.
        options: Everything else.
        progress: Called with one line for each step.

    Raises:
        UnsupportedModelError: A step has no exact form in ONNX; names the step and a way round.
        ParityError: The ONNX model answers otherwise than its source.
        SampleError: The sample or the labels are missing or don't fit.
        SourceError: The model is no fitted estimator.
        CallerError: The tag is no ``name:version``.
        OutputExistsError: Something is at `output`.
    """
    tell = progress or (lambda _: None)
    options = options or PackOptions()
    name, version = parse_tag(tag)
    model = checked_model(model, sample)
    truth = check_truth(y, rows_in(model, sample), model=model)
    tell(f"converting {framework_of(model) if isinstance(model, TensorModel) else type(model).__name__}")
    model, rows, conversion, validation = convert_and_prove(model, sample, options, tell)
    tell(f"parity: {conversion.report.sentence()}")
    if validation is not None:
        tell(f"parity on the validation data: {validation.report.sentence()}")
    check_width(truth, conversion.found)
    for remark in _remarks(rows):
        tell(remark)
    tell("measuring the reference and the importance of features")
    older = Bundle.open(parent) if isinstance(parent, (str, Path)) else parent
    work = Workpiece(model, rows, truth, conversion, validation, older, options)
    work, measured = _measured(work, tell)
    bundle = _stated(build_bundle(work, name=name, version=version, tell=tell), work, measured)
    tell(f"digest {bundle.digest}")
    if output is not None:
        bundle = replace(bundle, path=bundle.write(output))
    return bundle


def _remarks(rows: Sample) -> Iterator[str]:
    """Yield what the packer should know of the sample, and could not see in it."""
    whole = [column.name for column in rows.columns if column.dtype == "int64" and not column.is_boolean]
    if whole and rows.form == "frame":
        yield f"devices will send whole numbers as {_few(whole)}: where fractions can come, give the column as float"
    if rows.unused:
        yield (
            f"the model drops {_few(rows.unused)}, but devices will have to send it, and some of the sample's values "
            "travel with the bundle: train without it if that is not wanted"
        )
    if rows.rows < _FEW_ROWS:
        yield f"{rows.rows} rows prove little, and are a weak reference for drift: give {_FEW_ROWS} or more"
    if rows.rows < FEW_VALUES:
        yield "so few rows show no distribution: wide equal cells are counted, for the fleet's first windows to fill"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def parse_tag(tag: str) -> tuple[str, str]:
    """Split ``name:version``.

    Raises:
        CallerError: It is no such tag.
    """
    try:
        ref = parse_ref(tag)
    except CallerError as error:
        raise CallerError(error.message, hint=_better(tag) or error.hint) from error
    if ref.version is None:
        raise CallerError(f"{tag!r} names no version", hint="a bundle is packed under name:1.4.0; aliases come later")
    return ref.name, ref.version


def _better(tag: str) -> str:
    """Return advice with a tag near to the one that was given, where there is one."""
    name, _, version = tag.rpartition(":") if ":" in tag else (tag, "", "")
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    version = re.sub(r"[^A-Za-z0-9._-]+", "-", version.removeprefix("v")).strip("-.")
    if name and not version and "@" not in tag:
        return f"write the version too: -t {name}:1.0.0"
    if not name or not version[:1].isdigit():
        return ""
    return f"write -t {name}:{version}"


def _measured(work: Workpiece, tell: Progress) -> tuple[Workpiece, dict[str, Any]]:
    """Build the variants that were asked for, and measure what the model costs here."""
    conversion, options = work.conversion, work.options
    seen = [(work.rows.tensors, conversion.found)]
    if work.validation is not None:
        seen.append((work.validation.sample.tensors, work.validation.found))
    built: list[Built] = []
    refused: list[dict[str, Any]] = []
    if options.variants:
        tell(f"building variants: {', '.join(options.variants)}")
        golden = work.rows.take(work.chosen)
        answered = Runner(conversion.onnx).run(golden)
        built, refused = build_variants(
            conversion.onnx, options.variants, outputs=conversion.outputs, data=seen, golden=(golden, answered)
        )
        for entry in built:
            tell(f"variant {entry.evidence['variant']}: {variant_line(entry.evidence)}")
        for no in refused:
            tell(f"refused: {no['why']}")
    cost = cost_of(conversion.onnx, seen[-1][0])
    if cost is not None:
        _check_memory(cost, len(conversion.onnx), options.memory_budget_bytes)
        tell(f"one row takes {cost.p50_ms:.3g} ms here (p95 {cost.p95_ms:.3g} ms)")
    measured = {
        "platform": here(),
        "cost": None if cost is None else cost.as_json(),
        "variants": [dict(variant.evidence) for variant in built],
        "refused": refused,
    }
    return replace(work, variants=tuple(built)), measured


def _check_memory(cost: Cost, model_bytes: int, declared: int | None) -> None:
    """Refuse here what every device would refuse in its self-test.

    Raises:
        MemoryBudgetError: It takes more than the allowance.
    """
    allowance = memory_allowance(model_bytes, declared)
    if cost.peak_bytes is None or cost.peak_bytes <= allowance:
        return
    why = "it declares" if declared == allowance else f"a model of {model_bytes:,} bytes gets that declares none"
    wanted = -(-cost.peak_bytes * 5 // 4 >> 20)
    raise MemoryBudgetError(
        f"loading and running it took {cost.peak_bytes >> 20} MB here, more than the {allowance >> 20} MB {why}, "
        "so devices would refuse it",
        hint=f"if they have that much, declare it: --memory-budget {wanted}",
    )


def _stated(bundle: Bundle, work: Workpiece, measured: Mapping[str, Any]) -> Bundle:
    rows, conversion, options = work.rows, work.conversion, work.options
    lineage = gather(tensors=rows.tensors, source=options.source, extra=options.lineage)
    report = {**conversion.report.as_json(), "attempt": conversion.attempt.name}
    if work.validation is not None:
        report["validation"] = work.validation.report.as_json()
    subject = str(bundle.ref)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = provenance_statement(lineage, subject=subject, digest=bundle.digest, finished_at=now)
    sbom = sbom_statement(bundle, lineage, made_at=now)
    parity = parity_statement(report, subject=subject, digest=bundle.digest)
    measurement = measurement_statement(measured, subject=subject, digest=bundle.digest)
    statements = {"provenance": provenance, "parity": parity, "measurement": measurement, "sbom": sbom}
    return replace(bundle, parity=report, measured=measured, statements=statements)
