"""The gates that a bundle passed when it was packed, made again from it alone, on this machine's onnxruntime.

Owns the list of gates and their verdicts. Golden rows are what devices judge by; the stated parity is read from beside
the bundle, so that what was allowed then is seen now; budgets are held to what one row takes here. Whether bytes and
documents are sound is `verification`'s.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from shoal_converter.bundle import Bundle, parity_line
from shoal_converter.measurement import Cost
from shoal_converter.self_test import golden, self_test
from shoal_converter.variants import cost_of
from shoal_protocol.bundle.layout import MODEL_ONNX
from shoal_protocol.errors import CallerError, ShoalError

Verdict = Literal["pass", "fail", "skipped"]
Measure = Callable[[bytes, Mapping[str, npt.NDArray[Any]]], Cost | None]


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        gate: Its name.
        verdict: ``skipped``: there was nothing to judge.
        found: In a sentence.
        value: What was measured, where it is a number.
        bound: What it may be.
        is_parity: Whether it is about the model's answers.
    """

    gate: str
    verdict: Verdict
    found: str
    value: float | None = None
    bound: float | None = None
    is_parity: bool = field(default=False, kw_only=True)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: value for name, value in asdict(self).items() if name != "is_parity"}


@dataclass(frozen=True)
class Requirement:
    """A figure of the model that must be at least, or at most, so much: ``accuracy>=0.95``."""

    metric: str
    sign: Literal[">=", "<="]
    bound: float


def parse_requirement(text: str) -> Requirement:
    """Read ``accuracy>=0.95``.

    Raises:
        CallerError: It is written otherwise.
    """
    found = re.fullmatch(r"\s*([a-z_0-9]+)\s*(>=|<=)\s*([-+0-9.eE]+)\s*", text)
    try:
        bound = float(found[3]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or math.isnan(bound):
        raise CallerError(f"{text!r} is no requirement", hint="write 'accuracy>=0.95' or 'mean_absolute_error<=2.5'")
    return Requirement(found[1], ">=" if found[2] == ">=" else "<=", bound)


def check(bundle: Bundle, *, requirements: Sequence[Requirement] = (), measure: Measure = cost_of) -> tuple[Gate, ...]:
    """Pass a bundle through every gate; one that fails does not hide the others.

    Args:
        bundle: As read, so with every digest checked.
        requirements: What the model's own figures, as its reference states them, must be.
        measure: Returns what a model costs here on rows.
    """
    figures = tuple(_figure(bundle, required) for required in requirements)
    return (_runtime(bundle), *_golden(bundle), _stated(bundle), *_budgets(bundle, measure), *figures)


def _figure(bundle: Bundle, required: Requirement) -> Gate:
    reference = bundle.reference
    metrics = {} if reference is None else reference.metrics
    name = f"{required.metric}{required.sign}{required.bound:g}"
    if reference is None or required.metric not in metrics:
        known = f"it has {', '.join(sorted(metrics))}" if metrics else "pack with labels: --target NAME"
        return Gate(name, "fail", f"the bundle states no {required.metric}; {known}", bound=required.bound)
    value = metrics[required.metric]
    met = value >= required.bound if required.sign == ">=" else value <= required.bound
    of = reference.sources.get("metrics", "sample")
    found = f"{value:.4g} on the {of}"
    return Gate(name, "pass" if met else "fail", found, value=value, bound=required.bound)


def _runtime(bundle: Bundle) -> Gate:
    from onnxruntime import __version__ as here  # noqa: PLC0415 - heavy

    least = bundle.info.runtime.min_onnxruntime
    enough = _numbers(here) >= _numbers(least)
    return Gate(
        "onnxruntime",
        "pass" if enough else "fail",
        f"{here} here, the bundle needs {least} or newer" + ("" if enough else ": pip install -U onnxruntime"),
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _golden(bundle: Bundle) -> Iterator[Gate]:
    for form in bundle.info.variants:
        name = "golden rows" if form.path == MODEL_ONNX else f"golden rows of {form.path}"
        try:
            found = self_test(bundle, form)
        except ShoalError as error:
            yield Gate(name, "fail", error.message, is_parity=True)
            continue
        if found is None:
            yield Gate(name, "skipped", "the bundle has none", is_parity=True)
        else:
            verdict: Verdict = "pass" if found.passed else "fail"
            yield Gate(name, verdict, found.sentence(), value=found.max_abs, is_parity=True)


def _stated(bundle: Bundle) -> Gate:
    """Read what was stated at packing: it must be about this bundle, have passed, and allow what bundle.json says."""

    def gate(verdict: Verdict, found: str) -> Gate:
        return Gate("stated parity", verdict, found, is_parity=True)

    raw, rule = bundle.statements.get("parity"), bundle.info.golden
    if raw is None:
        return gate("skipped", f"no parity statement lies beside it; if the registry has one: pull {bundle.ref}")
    try:
        document = json.loads(raw)
        digests = [subject["digest"]["sha256"] for subject in document["subject"]]
        report, allowed = document["predicate"], document["predicate"]["tolerance"]
        said = (
            f"{parity_line(report)}; allowed rtol {allowed['rtol']:g}, atol {allowed['atol']:g}, "
            f"{allowed['max_label_flips']:.3g} of labels"
        )
        passed = bool(report["passed"])
    except (ValueError, KeyError, TypeError) as error:
        return gate("fail", f"the parity statement does not parse: {error}")
    if digests != [bundle.digest.removeprefix("sha256:")]:
        return gate("fail", "the parity statement is about another bundle")
    if rule is not None and (rule.rtol, rule.atol) != (allowed["rtol"], allowed["atol"]):
        return gate("fail", f"{said}; but bundle.json has devices allow rtol {rule.rtol:g}, atol {rule.atol:g}")
    return gate("pass" if passed else "fail", said)


def _budgets(bundle: Bundle, measure: Measure) -> Iterator[Gate]:
    declared = bundle.info.runtime
    rows = golden(bundle)[0]
    cost = measure(bundle.model, rows) if rows else None
    if cost is None:
        missed: Verdict = "skipped" if declared.latency_budget_ms is None else "fail"
        yield Gate("latency budget", missed, "one row can't be timed here", bound=declared.latency_budget_ms)
        return
    yield _held("latency budget", "ms (p95 of one row)", cost.p95_ms, declared.latency_budget_ms)
    if cost.peak_bytes is not None:
        budget = declared.memory_budget_bytes
        yield _held("memory budget", "MB", cost.peak_bytes / 2**20, None if budget is None else budget / 2**20)


def _held(name: str, unit: str, value: float, budget: float | None) -> Gate:
    if budget is None:
        return Gate(name, "skipped", f"takes {value:.3g} {unit} here; none is declared", value=value)
    verdict: Verdict = "pass" if value <= budget else "fail"
    return Gate(name, verdict, f"takes {value:.3g} {unit} here, declared are {budget:.3g}", value=value, bound=budget)


def holds(gates: Sequence[Gate]) -> bool:
    """Tell whether no gate failed."""
    return all(gate.verdict != "fail" for gate in gates)
