"""What can go wrong between a caller's input and a model's answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shoal_protocol.errors import CallerError, ContentError


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with an input.

    Attributes:
        field: The feature's or tensor's name.
        expected: What the bundle's schema asks for.
        got: What came instead.
        row: Index of the first faulty row, where the fault is one of a row.
    """

    field: str
    expected: str
    got: str
    row: int | None = None

    def __str__(self) -> str:
        where = "" if self.row is None else f" in row {self.row}"
        return f"{self.field!r}{where}: expected {self.expected}, got {self.got}"

    def as_json(self) -> dict[str, str | int]:
        """Return the form of a problem's ``faults``."""
        plain: dict[str, str | int] = {"field": self.field, "expected": self.expected, "got": self.got}
        return plain if self.row is None else {**plain, "row": self.row}


class InputError(CallerError):
    """An input does not fit the bundle's schema; all faults are reported together, as the attribute `faults`."""

    code = "input"

    def __init__(self, faults: Sequence[Fault], *, hint: str = "") -> None:
        shown = "; ".join(str(fault) for fault in faults[:8])
        more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
        super().__init__(shown + more, hint=hint, faults=[fault.as_json() for fault in faults])
        self.faults = tuple(faults)


class ModelLoadError(ContentError):
    """The bundle's model can't be run: onnxruntime refuses it, or it isn't what the bundle's documents say."""

    code = "model"


class InferenceError(ContentError):
    """The model failed on an input that its schema allows."""

    code = "inference"


class PredictionIdError(CallerError):
    """A text is no prediction id."""

    code = "prediction_id"
    status = 400


class UnknownPredictionError(PredictionIdError):
    """Another device gave this id, or this one before it lost its key; or its model is forgotten."""

    code = "unknown_prediction"
    status = 404


class ExpiredPredictionError(PredictionIdError):
    """The prediction is too old to take a label."""

    code = "expired_prediction"
    status = 410


class LabelError(CallerError):
    """A label does not fit what the model predicts."""

    code = "label"
    status = 422
