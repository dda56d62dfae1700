"""Features that no longer move together, in two samples of columns each of which is distributed as ever. Pure.

Components like those that a bundle fixes, see `shoal_protocol.profile.joint_fitting`, are fitted to both samples
together, computed for both, and compared like any column. Fitted to the reference alone, the largest would vary more
and the smallest less on the very rows that chose them than on any others, however equal (Marchenko and Pastur 1967):
at a nominal 1 % with fifty independent columns and a thousand rows on a side, always. Of both together they know
nothing about which row is whose, so equal samples remain exchangeable.

Only columns without drift of their own take part: so what drifts in common can only be how they move together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.grid import fit_numeric
from shoal_protocol.profile.joint import joint_values, loads
from shoal_protocol.profile.joint_fitting import LARGEST, SMALLEST, joint_streams
from shoal_protocol.profile.profile import Stream
from shoal_server.statistics.few_rows import LEAST_ROWS
from shoal_server.statistics.samples import Column, Comparison, Verdict, compare, is_categorical, overall

Columns = Mapping[str, Column]

_FITTED_ROWS = 100_000
"""Of both samples together, the same part of each: enough to know components by, and no memory for millions."""


@dataclass(frozen=True)
class JointComparison:
    """What both looks say together.

    Attributes:
        found: Of all columns, and of those joint features that drift.
        reference: Columns of the first sample, and values of those joint features.
        current: The same of the second.
        looked_at: Number of joint features.
    """

    found: Comparison
    reference: dict[str, Column]
    current: dict[str, Column]
    looked_at: int


def compare_jointly(
    reference: Columns, current: Columns, *, alpha: float, time_ordered: bool = False, given: str = ""
) -> JointComparison:
    """Compare two samples column by column, then what the columns without drift have in common.

    Args:
        reference: As `samples.compare` takes them.
        current: The same columns.
        alpha: Probability of saying "drift" of equal samples, over all columns and joint features: each of them has an
            equal part of it.
        time_ordered: See `samples.compare`.
        given: See there; joint features are not looked at then.
    """
    numeric = [name for name, column in reference.items() if not is_categorical(column)]
    possible = 0 if given or len(numeric) < 2 or _few(reference, current) else min(len(numeric), LARGEST + SMALLEST)
    part = len(reference) / (len(reference) + possible)
    found = _at(part, compare(reference, current, alpha=alpha * part, time_ordered=time_ordered, given=given))
    drifting = {one.name for one in found.features if one.verdict is Verdict.DRIFT}
    quiet = [name for name in numeric if name not in drifting]
    fitted = _fitted(reference, current, quiet) if possible else _Fitted({}, [])
    if not fitted.joint:
        return JointComparison(found, dict(reference), dict(current), 0)
    mine, theirs = (_values(fitted, columns) for columns in (reference, current))
    joint = _at(1 - part, compare(mine, theirs, alpha=alpha * (1 - part), time_ordered=time_ordered))
    by_title = {stream.title: stream for stream in fitted.joint}
    told = tuple(
        replace(one, kind="joint", cause=correlation_text(loads(by_title[one.name].params)))
        for one in joint.features
        if one.verdict is Verdict.DRIFT
    )
    features = (*(one for one in found.features if one.name in drifting), *told)
    features += tuple(one for one in found.features if one.name not in drifting)
    names = {one.name for one in told}
    return JointComparison(
        Comparison(overall([one.verdict for one in features]), features),
        {**reference, **{name: mine[name] for name in names}},
        {**current, **{name: theirs[name] for name in names}},
        len(fitted.joint),
    )


def _few(reference: Columns, current: Columns) -> bool:
    return min(len(next(iter(sides.values()))) for sides in (reference, current)) < LEAST_ROWS


def _at(part: float, found: Comparison) -> Comparison:
    """Return a comparison at a part of alpha with p-values that compare with the whole of it."""
    return Comparison(found.verdict, tuple(replace(one, p=min(one.p / part, 1.0)) for one in found.features))


def correlation_text(features: Collection[str]) -> str:
    """Say that features no longer move together, by what loads most on a joint one.

    >>> correlation_text(["-flow", "heat"])
    'correlation: how flow and heat move together has changed; each of them is distributed as before'
    """
    names = [name.removeprefix("-") for name in features]
    listed = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"correlation: how {listed} move together has changed; each of them is distributed as before"


def joint_notes(looked_at: int) -> list[str]:
    """Say what was looked at beside the columns, if anything was."""
    told = "joint features were compared too: whether numeric columns without drift still move together"
    return [f"{looked_at} {told}; those that don't are listed."] if looked_at else []


@dataclass(frozen=True)
class _Fitted:
    """The single columns on their grids, and the joint features over them."""

    singles: dict[str, Stream]
    joint: list[Stream]


def _fitted(reference: Columns, current: Columns, names: Collection[str]) -> _Fitted:
    rows = sum(len(next(iter(sides.values()))) for sides in (reference, current))
    apart = max(1, rows // _FITTED_ROWS)
    both = {name: _finite(np.concatenate([reference[name][::apart], current[name][::apart]])) for name in names}
    usable = [name for name in names if np.isfinite(both[name]).any()]
    singles = {name: Stream(name, "input", fit_numeric(both[name]), name, 0) for name in usable}
    return _Fitted(singles, joint_streams(list(singles.values()), {name: both[name][:, None] for name in usable}))


def _values(fitted: _Fitted, columns: Columns) -> dict[str, Column]:
    """Return the joint features of a sample, by their titles."""
    values = {}
    for stream in fitted.joint:
        cells = [fitted.singles[name].grid.cells_of(_finite(columns[name])) for name in stream.params["streams"]]
        centers, weights = (np.asarray(stream.params[key], dtype=np.float64) for key in ("centers", "weights"))
        values[stream.title] = joint_values(np.stack(cells, axis=1), centers, weights[None, :])[0].astype(np.float64)
    return values


def _finite(column: Column) -> npt.NDArray[np.float64]:
    return np.where(np.isfinite(column), column, np.nan).astype(np.float64)
