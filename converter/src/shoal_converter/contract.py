"""The contract of a bundle: its written form checked against the features, and against the model's own rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SampleError
from shoal_protocol.bundle.contract import Rule, derived_contract, parse_contract
from shoal_protocol.bundle.schema import FieldSpec
from shoal_protocol.profile.contract import contract_streams, violations
from shoal_protocol.profile.profile import Stream, derived

Array = npt.NDArray[Any]


def agreed(
    document: Mapping[str, Any] | Literal["auto"] | None,
    fields: Sequence[FieldSpec],
    tensors: Mapping[str, Array],
    *,
    tell: Callable[[str], object],
) -> tuple[Rule, ...]:
    """Return a contract's rules, after telling which of them the model's own rows break.

    Args:
        document: Its written form, or ``auto``: what the rows are, with some room; none: there is no contract.
        fields: The model's features.
        tensors: Rows of the sample or the validation data.
        tell: Called with a sentence for each rule that those rows break more often than it tolerates.

    Raises:
        ContentError: The written form is faulty or names no feature.
        SampleError: A rule doesn't fit its feature's type.
    """
    if document is None:
        return ()
    if document == "auto":
        document = derived_contract(fields)
    rules = parse_contract(document, fields={field.name for field in fields})
    streams = contract_streams(rules, fields)
    unfit = [rule for rule, stream in zip(rules, streams, strict=True) if not stream.is_known]
    if unfit:
        raise SampleError(f"contract: {unfit[0].words}, but it is a text", hint="give categories instead of a range")
    broken = violations(rules, [_counts(stream, tensors) for stream in streams])
    for rule, stream, count in zip(rules, streams, broken, strict=True):
        rows = len(tensors[stream.tensor])
        if rule.is_broken(count, rows):
            tell(f"contract: {rule.words}, but {count} of the {rows} rows here break it")
    return rules


def _counts(stream: Stream, tensors: Mapping[str, Array]) -> npt.NDArray[np.int64]:
    cells = stream.grid.cells_of(derived(stream, tensors[stream.tensor]))
    return np.bincount(cells, minlength=stream.grid.cells).astype(np.int64)
