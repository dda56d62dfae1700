"""A model with its proven conversion and the rows that proved it: what a bundle's documents are then made from.

Owns the way there, by the model's kind, and which rows each figure is of: the sample's, or those of the validation
data. Leaves the conversion itself to `conversion` and `tensor_proof`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal_converter.bundle import Bundle
from shoal_converter.conversion import Conversion, Proof, convert_rows, prove
from shoal_converter.domain.golden import golden_rows
from shoal_converter.errors import ParityError, SampleError
from shoal_converter.evidence import Evidence, as_fed
from shoal_converter.pack_options import PackOptions
from shoal_converter.sample import Sample, make_sample
from shoal_converter.sources.estimator import classes_of, task_of
from shoal_converter.sources.tensor_model import TensorModel
from shoal_converter.tensor_proof import converted, proven
from shoal_converter.variants import Built
from shoal_protocol.profile.grid import category_text

Array = npt.NDArray[Any]
Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Workpiece:
    """What has been gathered once the conversion is proven."""

    model: Any
    rows: Sample
    truth: Array | None
    conversion: Conversion
    validation: Proof | None
    parent: Bundle | None
    options: PackOptions
    variants: tuple[Built, ...] = ()

    @property
    def profiled(self) -> Evidence:
        """The rows whose distribution becomes the reference: validation data if there is any."""
        return self._of_sample() if self.validation is None else self._of_validation(self.validation)

    @property
    def judged(self) -> Evidence:
        """The rows that figures are of: validation data, unless only the sample has labels."""
        only_sample = self.truth is not None and self.options.validation_y is None
        if self.validation is None or only_sample:
            return self._split(self._of_sample())
        return self._split(self._of_validation(self.validation))

    def _of_sample(self) -> Evidence:
        return Evidence("sample", self.rows.tensors, self.conversion.found, self.truth)

    def _of_validation(self, proof: Proof) -> Evidence:
        rows = proof.sample.rows
        truth = check_truth(self.options.validation_y, rows, model=self.model, what="validation")
        check_width(truth, proof.found)
        return Evidence("validation", proof.sample.tensors, proof.found, truth)

    def _split(self, evidence: Evidence) -> Evidence:
        columns = {name: np.asarray(values) for name, values in (self.options.segments or {}).items()}
        wrong = [name for name, values in columns.items() if values.shape != (evidence.rows,)]
        if wrong:
            raise SampleError(
                f"the column {wrong[0]!r} to split by has shape {columns[wrong[0]].shape}; "
                f"the {evidence.kind} has {evidence.rows} rows",
                hint="give one value for each row that is judged",
            )
        return replace(evidence, columns=columns)

    @property
    def groupings(self) -> tuple[tuple[str, ...], ...]:
        """The columns to split figures by."""
        return self.options.segment_by or tuple((name,) for name in self.options.segments or {})

    @property
    def chosen(self) -> npt.NDArray[np.int64]:
        """The golden rows."""
        return golden_rows(self.rows.tensors, self.conversion.found)


def convert_and_prove(
    model: Any, sample: Any, options: PackOptions, tell: Progress
) -> tuple[Any, Sample, Conversion, Proof | None]:
    """Convert by the model's kind; a model over tensors knows the meaning of its outputs only then."""
    if not isinstance(model, TensorModel):
        return model, *_proven(model, sample, options, tell)
    model, rows, conversion = converted(model, sample, tolerance=options.tolerance)
    validation = None if options.validation is None else proven(model, options.validation, conversion)
    return model, rows, conversion, validation


def _proven(model: Any, sample: Any, options: PackOptions, tell: Progress) -> tuple[Sample, Conversion, Proof | None]:
    """Convert, and prove the result on the validation data too; what fails only there is tried with double inputs."""

    def converted(*, double: bool) -> tuple[Sample, Conversion, Proof | None]:
        rows, conversion = convert_rows(
            model,
            sample,
            options=options.converter_options,
            tolerance=options.tolerance,
            float64_inputs=double,
            progress=tell,
        )
        if options.validation is None:
            return rows, conversion, None
        dtype: Literal["float32", "float64"] = (
            "float64" if any(column.dtype == "float64" for column in rows.columns) else "float32"
        )
        try:
            unseen = as_fed(make_sample(options.validation, model=model, float_dtype=dtype), rows)
        except SampleError as error:
            raise SampleError(f"validation data: {error.message}", hint=error.hint) from error
        return rows, conversion, prove(model, unseen, conversion, options=options.converter_options)

    try:
        return converted(double=options.float64_inputs)
    except ParityError as error:
        if options.float64_inputs or error.data.get("data") != "validation":
            raise
        tell(f"{error.message}; trying float64 inputs")
        return converted(double=True)


def check_truth(y: Any, rows: int, *, model: Any, what: str = "sample") -> Array | None:
    """Return labels or values as an array; `what` names the rows in what is said of them.

    Raises:
        SampleError: Another number than rows, some are missing, or none of the labels is one of the model's classes.
    """
    if y is None:
        return None
    truth = np.asarray(y)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth.ravel()
    if len(truth) != rows:
        raise SampleError(
            f"y has {len(truth)} rows, the {what} has {rows}", hint="give the labels of exactly these rows"
        )
    if truth.dtype.kind == "f":
        missing = int(np.isnan(truth).reshape(rows, -1).any(axis=1).sum())
    elif truth.dtype.kind == "O":
        missing = sum(value is None or value != value for value in truth.ravel())  # noqa: PLR0124 - NaN
    else:
        missing = 0
    classification = task_of(model) == "classification"
    if missing:
        raise SampleError(
            f"y has no {'label' if classification else 'value'} in {missing} of {rows} rows",
            hint=f"leave those rows out of {what} and y, or leave y out",
        )
    if classification and not isinstance(model, TensorModel):
        _check_labels(truth, classes_of(model))
    return truth


def _check_labels(truth: Array, classes: tuple[str, ...] | None) -> None:
    """Refuse labels of which the model knows none: they are written otherwise than those that it was trained on.

    Some that it does not know are no mistake: a class that training never saw counts as wrong.
    """
    if classes is None or truth.ndim != 1:
        return
    plain = (int(value) if isinstance(value, bool) else value for value in truth.tolist())  # as `classes_of` has them
    given = sorted({category_text(value) for value in plain})
    if set(given) & set(classes):
        return
    raise SampleError(
        f"none of the labels in y ({_some(given)}) is a class of the model ({_some(classes)})",
        hint="give them as the model was trained on them: before a LabelEncoder gave them numbers, or after it",
    )


def _some(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts[:4]) + (", …" if len(texts) > 4 else "")


def check_width(truth: Array | None, found: Mapping[str, Array]) -> None:
    """Check that there are as many labels or values in a row as the model gives.

    Raises:
        SampleError: There are more or fewer.
    """
    name = next((name for name in ("label", "value") if name in found), None)
    if truth is None or name is None:
        return
    gives, has = found[name].size // len(found[name]), truth.size // len(truth)
    if gives != has:
        raise SampleError(
            f"y has {has} columns, the model gives {gives} {name}{'s' if gives > 1 else ''} a row",
            hint="give y in the form that the model was fitted on",
        )
