"""A device's self-test, made here: does each form of the model still give its golden rows?

Owns reading the golden rows and the comparison, within what the bundle allows: the canonical model within the tolerance
under which it was packed, a variant within its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.bundle import Bundle
from shoal_converter.onnx_runtime import Runner
from shoal_protocol.bundle.layout import golden_input, golden_output
from shoal_protocol.bundle.schema import Golden, Variant
from shoal_protocol.bundle.tensors import decode_tensor
from shoal_protocol.errors import ContentError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SelfTest:
    """What one form of the model gave.

    Attributes:
        rows: Golden rows.
        off: Outputs that are further off than allowed: name -> a sentence.
        max_abs: Largest absolute difference of any number.
        flips: Values of outputs other than floats that differ.
    """

    rows: int
    off: Mapping[str, str]
    max_abs: float
    flips: int

    @property
    def passed(self) -> bool:
        """Whether every output is near enough."""
        return not self.off

    def sentence(self) -> str:
        """Say what was found."""
        if self.off:
            return "; ".join(self.off.values())
        return f"{self.rows} rows give the same outputs here (max abs {self.max_abs:.2g}, {self.flips} labels differ)"


def golden(bundle: Bundle) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the golden rows: input tensors and expected outputs by name.

    Raises:
        ContentError: A tensor does not parse.
    """
    found: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
    for store, path_of in zip(found, (golden_input, golden_output), strict=True):
        at = 0
        while (raw := bundle.files.get(path_of(at))) is not None:
            name, values = decode_tensor(raw)
            store[name] = values
            at += 1
    return found


def self_test(bundle: Bundle, form: Variant) -> SelfTest | None:
    """Run one form of the model on the golden rows; none where the bundle promises none.

    Raises:
        ContentError: It promises some, and there are none.
        RuntimeRefusedError: onnxruntime refuses the model.
    """
    rule = bundle.info.golden
    if rule is None:
        return None
    inputs, expected = golden(bundle)
    if not inputs or not expected:
        raise ContentError("bundle.json promises golden rows, and there are none")
    got = Runner(bundle.files[form.path]).run(inputs)
    off: dict[str, str] = {}
    largest, flips = 0.0, 0
    for name, values in expected.items():
        if name not in got or got[name].shape != values.shape:
            shape = got[name].shape if name in got else "nothing"
            off[name] = f"{name}: the model gives {shape} for it, expected {values.shape}"
            continue
        if values.dtype.kind == "f":
            wrong, apart = _numbers(got[name], values, tolerance=_tolerance(rule, form, name))
            largest, allowed = max(largest, apart), 0
        else:
            wrong = int((got[name].astype(str) != values.astype(str)).sum())
            flips, allowed = flips + wrong, 0 if form.golden is None else form.golden.label_flips
        if wrong > allowed:
            off[name] = f"{name} differs in {wrong} of {values.size} values from the golden ones, allowed are {allowed}"
    return SelfTest(rule.rows, off, largest, flips)


def _tolerance(rule: Golden, form: Variant, output: str) -> tuple[float, float]:
    near = form.golden
    return (rule.rtol, rule.atol) if near is None else (near.rtol, near.atol.get(output, rule.atol))


def _numbers(got: Array, values: Array, *, tolerance: tuple[float, float]) -> tuple[int, float]:
    """Return how many numbers are too far off, and the largest difference of those that can be subtracted."""
    rtol, atol = tolerance
    near = np.isclose(got, values, rtol=rtol, atol=atol, equal_nan=True)
    finite = np.isfinite(got) & np.isfinite(values)
    apart = np.abs(got[finite].astype(np.float64) - values[finite].astype(np.float64))
    return int((~near).sum()), float(apart.max(initial=0.0))
