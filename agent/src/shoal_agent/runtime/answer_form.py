"""What a model said, in the few bytes by which a true label can be compared with it later.

Owns which answers labels can be given for: a classifier's class and its confidence bin, a regression's single value.
What is compared stands in `shoal_protocol.profile.labels`, so that device and server mean the same cells.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.errors import LabelError
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.profile.grid import category_text
from shoal_protocol.profile.labels import (
    NO_CONFIDENCE,
    OTHER_CLASS,
    ErrorSums,
    confidence_bin,
    confidence_bins,
    error_cell,
    error_span,
    label_classes,
)
from shoal_protocol.profile.profile import ProfileSpec

Array = npt.NDArray[Any]

_SAID = np.dtype([("said", "<u2"), ("bin", "u1")])
_ROW = struct.Struct("<HB")
_NAMED = 8


class Told(msgspec.Struct, frozen=True):
    """One row's label against its prediction: the cell that it is counted in, and the sums of a regression."""

    truth: int
    said: int
    bin: int
    errors: ErrorSums | None = None


class AnswerForm(msgspec.Struct, frozen=True, dict=True):
    """How one model's answers are kept in prediction ids; stored, so that ids outlive the model.

    Attributes:
        kind: ``classes``, ``value``, or ``none``: no label can be compared with what this model says.
        classes: Texts of the classes, in the order in which labels are counted.
        span: Of a regression's values, see `error_span`.
        output: The tensor that holds the class or the value.
        probabilities: The tensor of the classes' probabilities; empty: none.
    """

    kind: Literal["classes", "value", "none"]
    classes: tuple[str, ...] = ()
    span: float = 2.0
    output: str = ""
    probabilities: str = ""

    @classmethod
    def of(cls, schema: ModelSchema, spec: ProfileSpec | None) -> AnswerForm:
        """Return the form of a model's answers."""
        classes = label_classes(schema, spec)
        label, probabilities = schema.output("label"), schema.output("probabilities")
        if classes and label is not None:
            return cls("classes", classes, output=label.name, probabilities=probabilities.name if probabilities else "")
        value = schema.output("value")
        if value is not None and math.prod(size or 1 for size in value.shape[1:]) == 1:
            return cls("value", span=error_span(spec, value.name), output=value.name)
        return cls("none")

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: at for at, text in enumerate(self.classes)}

    @property
    def row_bytes(self) -> int:
        """Bytes that `said` keeps of a row; 0: nothing is kept."""
        return {"classes": _SAID.itemsize, "value": 4, "none": 0}[self.kind]

    def said(self, outputs: Mapping[str, Array]) -> bytes:
        """Return what each row's answer was, in `row_bytes` bytes a row."""
        if self.kind == "none":
            return b""
        values = outputs[self.output]
        if self.kind == "value":
            return np.asarray(values, dtype="<f4").reshape(len(values), -1)[:, 0].tobytes()
        probabilities = outputs.get(self.probabilities)
        if values.size == 1:  # three times as fast, and what nearly every call is
            confidence = NO_CONFIDENCE
            if probabilities is not None and probabilities.ndim == 2:
                confidence = confidence_bin(max(probabilities[0].tolist()))
            return _ROW.pack(self._place(values.item()), confidence)
        rows = np.empty(len(values), _SAID)
        rows["said"] = [self._place(value) for value in values.reshape(len(values), -1)[:, 0].tolist()]
        rows["bin"] = NO_CONFIDENCE
        if probabilities is not None and probabilities.ndim == 2:
            rows["bin"] = confidence_bins(probabilities.max(axis=1))
        return rows.tobytes()

    def told(self, said: bytes, row: int, label: object) -> Told:
        """Compare one row's answer with its true label.

        Args:
            said: Of `said`.
            row: Which row.
            label: A class as the model names it, or a number.

        Raises:
            LabelError: The label is no class of the model, or no finite number.
        """
        if self.kind == "value":
            return self._told_value(float(np.frombuffer(said, "<f4")[row]), label)
        if isinstance(label, (list, dict)) or label is None:
            raise LabelError(f"expected one of the model's classes, got {label!r:.60}", hint=self._known())
        truth = self._place(label)
        if truth == OTHER_CLASS:
            raise LabelError(f"{label!r:.60} is no class of this model", hint=self._known())
        answer = np.frombuffer(said, _SAID)[row]
        return Told(truth, int(answer["said"]), int(answer["bin"]))

    def _told_value(self, value: float, label: object) -> Told:
        if isinstance(label, bool) or not isinstance(label, (int, float)) or not abs(label) < 1e150:
            raise LabelError(f"expected a finite number, as this model predicts one; got {label!r:.60}")
        if not math.isfinite(value):
            raise LabelError("the prediction was no finite number: no label can be compared with it")
        error, truth = value - label, float(label)
        sums = ErrorSums(1, error, abs(error), error * error, truth, truth * truth)
        return Told(0, 0, error_cell(error, self.span), sums)

    def _place(self, value: object) -> int:
        """Return a class's place; numbers and truths are known as the model writes them or as JSON does."""
        at = self._places.get(value if type(value) is str else category_text(value))
        return self._places.get(str(value), OTHER_CLASS) if at is None else at

    def _known(self) -> str:
        more = ", …" if len(self.classes) > _NAMED else ""
        return f"classes are {', '.join(self.classes[:_NAMED])}{more}"
