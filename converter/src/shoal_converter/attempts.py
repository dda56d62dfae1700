"""In which ways to export a model, the likeliest to be exact first.

A graph is exported in float32, in double, or in double up to its last step (see `onnx_graph.joining`); a data frame's
columns stay apart or are joined into one tensor. Pure: looks at the estimator and at the sample's types, runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shoal_converter.sample import Sample
from shoal_converter.sources.boosting.models import compares_doubles, is_boosting
from shoal_converter.sources.estimator import first_step, steps

Floats = Literal["float32", "float64", "mixed"]


@dataclass(frozen=True)
class Attempt:
    """One way to export.

    Attributes:
        floats: How floats are computed; ``mixed``: in double up to the last step, that one in float32.
        integers: Inner type of integer columns.
        joined: Whether a data frame's columns become one inner tensor.
        source: What the graph came from where it was not exported here, such as ``onnx``.
    """

    floats: Floats = "float32"
    integers: Literal["int64", "float"] = "int64"
    joined: bool = False
    source: str = ""

    def inner_dtype(self, dtype: str) -> str:
        """Return the inner type of a column."""
        if dtype in {"float32", "float64"} or (dtype == "int64" and self.integers == "float"):
            return "float32" if self.floats == "float32" else "float64"
        return dtype

    @property
    def name(self) -> str:
        """Short text for reports."""
        if self.source:
            return f"as given ({self.source})"
        return self.floats + ("" if self.integers == "int64" else "-numbers") + ("-joined" if self.joined else "")


def attempts(model: Any, sample: Sample) -> Iterator[Attempt]:
    """Yield the ways to export, the likeliest to be exact first."""
    double = any(column.dtype == "float64" for column in sample.columns)
    order: tuple[Floats, ...] = ("float64", "float32") if double else ("float32", "float64")
    flat = flat_steps(model)
    trees = any(_is_tree(step) for _, step in steps(model))
    if trees and len(flat) > 1 and _is_tree(flat[-1][1]):
        order = ("mixed", "float64", "float32")  # its trees compare in float32, what comes before is in float64
    elif compares_in_double(model) or trees:
        order = ("float64", "mixed", "float32") if len(flat) > 1 else ("float64", "float32")
    elif len(flat) > 1:
        order = ("float64", "mixed", "float32") if double else ("float32", "mixed", "float64")
    if any("HistGradientBoosting" in type(step).__name__ or compares_doubles(step) for _, step in steps(model)):
        order = ("float64",)  # histogram-based trees and LightGBM compare in float64; in float32 they are right by luck
    apart = _wants_columns(model, sample)
    integers = any(column.dtype == "int64" for column in sample.columns)
    if sample.form == "frame" and not apart:
        for floats in order:
            yield Attempt(floats, "float", joined=True)
        return
    for floats in order:
        yield Attempt(floats)
    if integers:
        for floats in order:
            yield Attempt(floats, "float")


_COMPARING = (
    *("HistGradientBoosting", "KBinsDiscretizer", "Binarizer", "QuantileTransformer", "KNN"),
    *("KNeighbors", "RadiusNeighbors", "LocalOutlierFactor", "Isomap", "LocallyLinear", "MissingIndicator"),
)
"""Names of estimators that compare numbers in double with thresholds, or distances with each other."""


def _is_tree(step: Any) -> bool:
    return is_boosting(step) or any(word in type(step).__name__ for word in ("Tree", "Forest", "Boosting"))


def compares_in_double(model: Any) -> bool:
    """Tell whether the model compares numbers as float64 gives them with thresholds.

    There a row that float32 rounds can fall to the other side, however many rows of the sample do not. Trees that see
    the rows themselves are no such case: scikit-learn rounds for them.
    """
    names = [type(step).__name__ for _, step in steps(model)]
    if any(name.startswith(_COMPARING) for name in names) or any(
        _has_fine_categories(step) or compares_doubles(step) for _, step in steps(model)
    ):
        return True
    return len(names) > 1 and len(flat_steps(model)) > 1 and any(_is_tree(step) for _, step in steps(model))


def _has_fine_categories(step: Any) -> bool:
    """Tell whether an encoder knows numbers that float32 can't hold, so that a rounded one would be unseen."""
    for values in getattr(step, "categories_", None) or ():
        known = np.asarray(values)
        if (
            known.dtype.kind == "f"
            and (known[np.isfinite(known)] != known[np.isfinite(known)].astype(np.float32)).any()
        ):
            return True
    return False


def _wants_columns(model: Any, sample: Sample) -> bool:
    """Tell whether the first step tells columns apart, or their types can't be joined into one tensor."""
    kinds = {column.dtype == "string" for column in sample.columns}
    return hasattr(first_step(model), "transformers_") or _has_column_transformer(model) or len(kinds) > 1


def _has_column_transformer(model: Any) -> bool:
    return any(hasattr(step, "transformers_") for _, step in steps(model))


def flat_steps(model: Any) -> list[tuple[str, Any]]:
    """Return a pipeline's steps, those of a pipeline at its end included; one step for any other estimator."""
    model = getattr(model, "best_estimator_", model)
    if not hasattr(model, "steps"):
        return [("model", model)]
    named = [(name, step) for name, step in model.steps if step is not None and step != "passthrough"]
    if not named:
        return [("model", model)]
    *before, (name, last) = named
    after = (
        [(f"{name}.{inner}", step) for inner, step in flat_steps(last)] if hasattr(last, "steps") else [(name, last)]
    )
    return [*before, *after]
