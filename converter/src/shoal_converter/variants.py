"""Variants of a model, only on evidence: near enough to the canonical one, and faster or smaller by a stated amount.

Owns the rules. A form is built, compared on the sample and the validation data within its own tolerance, and measured
beside the canonical model in the same run. A gain in speed is claimed only for the platform where it was measured; one
in size holds everywhere. What fails is refused with its figures. What a variant's layer and its entry in
``bundle.json`` hold is made from model and rows alone; everything measured goes into a statement outside the digest.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.domain.parity import ParityReport, Tolerance, compare
from shoal_converter.errors import ConverterError, VariantRefusedError
from shoal_converter.measurement import Cost, measure
from shoal_converter.onnx_graph.smaller import FORMS, QUANTISED, Form, operators, smaller
from shoal_converter.onnx_runtime import Runner
from shoal_protocol.bundle.schema import Nearness, OutputSpec, Variant
from shoal_protocol.canonical import rounded

Array = npt.NDArray[Any]
Rows = tuple[Mapping[str, Array], Mapping[str, Array]]
"""Input tensors, and the canonical model's outputs on them."""

FASTER = 0.8
"""A gain in speed: at most this share of the canonical model's median time of one row."""

SMALLER = 0.6
"""A gain in size: at most this share of the canonical model's bytes."""

SLOWEST = 1.5
"""What is smaller may take so many times the canonical model's time, and what is faster so many times its bytes."""

TOLERANCES: dict[Form, Tolerance] = {
    "fp16": Tolerance(rtol=1e-2, atol=5e-3, max_label_flips=0.001),
    "int8": Tolerance(rtol=1e-2, atol=0.1, max_label_flips=0.01),
    "int8-dynamic": Tolerance(rtol=1e-2, atol=0.1, max_label_flips=0.01),
}
"""What counts as near; `atol` is a share of an output's spread, which is 1 for probabilities."""

_PLATFORMS = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, eq=False)
class Built:
    """A variant that may enter the bundle.

    Attributes:
        entry: As in ``bundle.json``.
        onnx: Canonical bytes.
        evidence: Parity and costs, for the statement.
    """

    entry: Variant
    onnx: bytes
    evidence: Mapping[str, Any]


def build_variants(
    model: bytes,
    wanted: Sequence[str],
    *,
    outputs: Sequence[OutputSpec],
    data: Sequence[Rows],
    golden: Rows,
) -> tuple[list[Built], list[dict[str, Any]]]:
    """Build what is wanted.

    Args:
        model: The canonical model.
        wanted: Forms; each must succeed. ``auto`` tries all and keeps the best one, or none.
        outputs: The model's outputs.
        data: The sample and, if there is any, the validation data; the last one gives the latency.
        golden: The golden rows.

    Returns:
        The variants, the best first, and what `auto` refused, with figures.

    Raises:
        VariantRefusedError: A form that was asked for by name is not near enough, gains nothing, or can't be built.
    """
    named = [form for form in FORMS if form in wanted]
    built = [_built(model, form, outputs=outputs, data=data, golden=golden) for form in named]
    refused: list[dict[str, Any]] = []
    if "auto" in wanted and not built:
        for form in FORMS:
            try:
                built.append(_built(model, form, outputs=outputs, data=data, golden=golden))
            except VariantRefusedError as error:
                refused.append({"variant": form, "why": error.message, "figures": error.figures})
        built = sorted(built, key=_rank)[:1]
    return sorted(built, key=_rank), refused


def _rank(built: Built) -> tuple[bool, float]:
    """Order by speed what is faster, then by size, which is the same at every run, what is smaller."""
    faster = built.entry.platform is not None
    return not faster, built.evidence["p50_ratio" if faster else "size_ratio"]


def _built(model: bytes, form: Form, *, outputs: Sequence[OutputSpec], data: Sequence[Rows], golden: Rows) -> Built:
    _check_form(model, form)
    try:
        made = smaller(model, form, data[0][0])
        runner = Runner(made)
        spread = _spreads(outputs, data[0][1])
        reports = [_compare(form, found, runner.run(tensors), spread) for tensors, found in data]
        golden_report = _compare(form, golden[1], runner.run(golden[0]), spread)
    except VariantRefusedError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise VariantRefusedError(form, f"it can't be built or does not run: {line}") from error
    for what, report in zip(("sample", "validation data"), reports, strict=False):
        _check_near(form, what, report)
    numbers = {name: report for name, report in golden_report.items() if name != "label"}
    _check_near(form, "golden rows", numbers)
    costs = measure({"canonical": model, form: made}, data[-1][0])
    ratio, size = costs[form].p50_ms / costs["canonical"].p50_ms, len(made) / len(model)
    figures = _evidence(costs, form, size=size, bytes_=len(made)) | {"parity": _figures(reports[-1])}
    here = _gain(form, ratio, size, figures)
    near = Nearness(
        rtol=TOLERANCES[form].rtol,
        atol={name: rounded(TOLERANCES[form].atol * value, 2) for name, value in sorted(spread.items())},
        label_flips=sum(report.label_flips for report in golden_report.values()) + (form != "fp16"),
    )
    precision = "float16" if form == "fp16" else "int8"
    entry = Variant(path=f"model/model.{form}.onnx", precision=precision, platform=here, golden=near)
    return Built(entry, made, figures | {"variant": form})


def _check_form(model: bytes, form: Form) -> None:
    found = operators(model)
    trees = sorted(name for name in found if name.startswith("TreeEnsemble"))
    if trees:
        raise VariantRefusedError(
            form,
            f"a model of trees ({trees[0]}) gains nothing by it: trees compare with thresholds, and rounding those "
            "changes answers without saving a product",
        )
    if form != "fp16" and not found & set(QUANTISED):
        raise VariantRefusedError(
            form, f"there is no matrix product or convolution to quantise (operators: {', '.join(sorted(found)[:8])})"
        )
    if form == "int8-dynamic" and "Conv" in found:
        raise VariantRefusedError(
            form, "convolutions with activations measured at every call run many times slower; int8 (static) suits them"
        )


def _spreads(outputs: Sequence[OutputSpec], found: Mapping[str, Array]) -> dict[str, float]:
    """Return what an output's absolute tolerance is a share of: 1 for probabilities, else its standard deviation."""
    spreads = {}
    for output in outputs:
        values = found[output.name]
        if values.dtype.kind == "f":
            spread = 1.0 if output.role == "probabilities" else float(np.nanstd(values.astype(np.float64)))
            spreads[output.name] = spread if np.isfinite(spread) and spread > 0 else 1.0
    return spreads


def _compare(
    form: Form, canonical: Mapping[str, Array], found: Mapping[str, Array], spread: Mapping[str, float]
) -> dict[str, ParityReport]:
    rule = TOLERANCES[form]
    return {
        name: compare(
            {name: values},
            {name: found[name]},
            Tolerance(rule.rtol, rounded(rule.atol * spread.get(name, 1.0), 2), rule.max_label_flips),
        )
        for name, values in canonical.items()
    }


def _check_near(form: Form, what: str, reports: Mapping[str, ParityReport]) -> None:
    """Refuse a form that is off: labels by the share that may flip, numbers by none.

    Raises:
        VariantRefusedError: It is.
    """
    if not all(report.passed for report in reports.values()):
        why = f"not near enough on the {what}: {_sentence(reports)}"
        raise VariantRefusedError(form, why, figures={"parity": _figures(reports)})


def _sentence(reports: Mapping[str, ParityReport]) -> str:
    return "; ".join(report.sentence() for report in reports.values() if not report.passed)


def _figures(reports: Mapping[str, ParityReport]) -> dict[str, Any]:
    return {
        "rows": max(report.rows for report in reports.values()),
        "label_flips": sum(report.label_flips for report in reports.values()),
        "max_abs": {name: rounded(report.max_abs) for name, report in reports.items() if name != "label"},
    }


def _evidence(costs: Mapping[str, Cost], form: Form, *, size: float, bytes_: int) -> dict[str, Any]:
    ratio = costs[form].p50_ms / costs["canonical"].p50_ms
    return {
        "p50_ms": costs[form].p50_ms,
        "canonical_p50_ms": costs["canonical"].p50_ms,
        "p50_ratio": rounded(ratio, 3),
        "bytes": bytes_,
        "size_ratio": rounded(size, 3),
        "platform": here(),
    }


def _gain(form: Form, ratio: float, size: float, figures: dict[str, Any]) -> str | None:
    """Return the platform that a gain in speed is claimed for, or none for a gain in size.

    Raises:
        VariantRefusedError: There is no gain.
    """
    if size <= SMALLER and ratio <= SLOWEST:
        return None
    if ratio <= FASTER and size <= SLOWEST:
        return here()
    raise VariantRefusedError(
        form,
        f"no gain: one row takes {ratio:.2f} times the canonical model's time ({figures['p50_ms']:.3g} ms against "
        f"{figures['canonical_p50_ms']:.3g} ms) and it has {size:.2f} times its bytes; wanted is a time of at most "
        f"{FASTER:g}, or a size of at most {SMALLER:g} at no more than {SLOWEST:g} times the time",
        figures=figures,
    )


def here() -> str:
    """Return this machine's platform, as devices call theirs: ``linux/amd64``."""
    machine = platform.machine()
    return f"{platform.system().lower()}/{_PLATFORMS.get(machine, machine)}"


def variant_line(evidence: Mapping[str, Any]) -> str:
    """Say a variant's evidence in one line."""
    parity = evidence["parity"]
    return (
        f"{evidence['size_ratio']:g} times the bytes, {evidence['p50_ratio']:g} times the time of one row on "
        f"{evidence['platform']}, {parity['label_flips']} of {parity['rows']} labels differ"
    )


def cost_of(model: bytes, tensors: Mapping[str, Array]) -> Cost | None:
    """Return what a model costs here, or none where it can't be measured: that must not stop a proven model."""
    try:
        return measure({"canonical": model}, tensors)["canonical"]
    except (ConverterError, OSError):
        return None
