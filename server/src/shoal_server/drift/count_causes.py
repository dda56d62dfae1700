"""What a stream's counts suggest as the cause of its change, in words. Pure.

Owns the guess from the reference's cells and those of the scope that changed: missing source, new category, values out
of the range (another unit, a broken sensor, outliers), stuck, saturation, noise, a shift. Whose change it is stands in
`localise`; what raw rows of two files tell is in `statistics.causes`. Counts can't tell one unit from another: nearly
all values leave the range together.
"""

from __future__ import annotations

import numpy as np

from shoal_protocol.profile.derivation import JOINT
from shoal_protocol.profile.grid import BELOW, MISSING, CategoricalGrid
from shoal_protocol.profile.joint import loads
from shoal_protocol.profile.profile import Stream
from shoal_server.statistics.cells import cells_of
from shoal_server.statistics.layout import Floats
from shoal_server.statistics.views import View
from shoal_server.statistics.words import percent

_ALL, _MANY, _SOME = 0.9, 0.5, 0.02
_PILE = 0.15
_FLAT = 0.15
_CUT = 0.1
_LEAST_ROWS = 5.0
_SURE = 0.05
_LEFT_MOVED = 0.15
"""Where values pile up at an end of the range and the others are so much larger or smaller, all have moved."""

_PLAIN_SHIFT = 0.25
"""About 0.95 standard deviations: so far, values have moved whatever else they do."""


def counts_cause(stream: Stream, before: Floats, now: Floats, *, view: View, effect: float) -> str:
    """Say what a stream's counts suggest.

    Args:
        stream: What is counted.
        before: Counts when nothing was wrong, shape (cells,).
        now: Counts since the change; of few rows only what is gross is told from them.
        view: What the alarm says has changed.
        effect: How much, in the unit of the view.
    """
    if not now.sum() or not before.sum():
        return ""
    if stream.derive == JOINT and stream.is_known:
        return f"correlation: how {_listed(loads(stream.params))} move together has changed, or they moved together"
    a, b = before / before.sum(), now / now.sum()
    some = max(_SOME, _LEAST_ROWS / float(now.sum()))
    if b[MISSING] > _ALL:
        return "missing source: nearly every value is missing"
    if view is View.MISSING or b[MISSING] - a[MISSING] > max(some, _distance(a, b)):
        word = "rose" if view is not View.MISSING or effect > 0 else "fell"
        return f"missing source: missing values {word} from {percent(a[MISSING])} to {percent(b[MISSING])}"
    cells = cells_of(stream.grid)
    labels = [cell.label for cell in cells]
    if isinstance(stream.grid, CategoricalGrid):
        return _categories(labels, a, b, some)
    return (
        _beyond(a, b, view, has_above=cells[-1].high is None)
        or _pile(labels, a, b, some)
        or (_sureness(a, b) if stream.kind == "output" and stream.name == "confidence" else "")
        or _moved(view, effect, a, b)
    )


def _categories(labels: list[str], a: Floats, b: Floats, some: float) -> str:
    fresh = float(b[BELOW] - a[BELOW])
    if fresh > some:
        return f"new category: {percent(b[BELOW])} of values are none that the training data had"
    lost, moved = int(np.argmax(a - b)), int(np.argmax(np.abs(b - a)))
    if a[lost] > some and b[lost] < a[lost] / 20:
        return f"missing category: {labels[lost]!r} ({percent(a[lost])} before) is nearly gone"
    return f"mix: {labels[moved]!r} went from {percent(a[moved])} to {percent(b[moved])}"


def _beyond(a: Floats, b: Floats, view: View, *, has_above: bool) -> str:
    above = float(b[-1] - a[-1]) if has_above else 0.0
    below = float(b[BELOW] - a[BELOW])
    most, side = max((above, "above"), (below, "below"))
    if above + below > _MANY:
        where = side if most > 0.8 * (above + below) else "outside of"
        return f"unit change or broken sensor: {percent(above + below)} of values are {where} the training range"
    if view is View.RANGE and most > 0 and abs(_superiority(a, b)) <= _PLAIN_SHIFT:
        return f"outliers: {percent(most)} of values are {side} the training range"
    return ""


def _pile(labels: list[str], a: Floats, b: Floats, some: float) -> str:
    """Tell whether one cell gained many values, and all the others lost alike (stuck) or one side did (saturation)."""
    at = int(np.argmax(b - a))
    rise = float(b[at] - a[at])
    if at in {MISSING, BELOW} or rise < max(_PILE, some):
        return ""
    at_end = at == BELOW + 1 or labels[at + 1 :] in ([], labels[-1:])
    if b[at] > _ALL:
        # the cells at either end are wide: values that moved far lie there too
        return f"{'shift or ' if at_end else ''}stuck: nearly all values lie at {labels[at]}"
    for side, word in ((slice(at + 1, None), "upper"), (slice(BELOW, at), "lower")):
        cut_off = float(a[side].sum())
        if cut_off > max(_CUT, some) and b[side].sum() < cut_off / 10 and rise > 0.6 * cut_off:
            return f"saturation: {percent(b[at])} of values lie at {labels[at]}, and none at its {word} side"
    by_chance = np.sqrt(a.size * some / _LEAST_ROWS)
    if np.abs(b - a).sum() / 2 > 1.3 * rise + by_chance / 3:
        return ""  # others gained as well: values have moved
    untouched = np.arange(a.size) != at
    if at_end and abs(_superiority(np.where(untouched, a, 0.0), np.where(untouched, b, 0.0))) > _LEFT_MOVED:
        return ""
    left = b[untouched].sum() / max(a[untouched].sum(), 1e-300)
    if np.abs(b - left * a)[untouched].sum() < max(_FLAT, 0.6 * by_chance):
        return f"stuck: {percent(b[at])} of values lie at {labels[at]}, before {percent(a[at])}"
    return ""


def _sureness(a: Floats, b: Floats) -> str:
    """Say what the confidence of a classifier does: no sensor spreads, the model gets less sure."""
    moved = _superiority(a, b)
    if abs(moved) < _SURE:
        return ""
    word = "surer" if moved > 0 else "less sure"
    return f"confidence: the model is {word} of its answers than before"


def _moved(view: View, effect: float, a: Floats, b: Floats) -> str:
    if view is View.LOCATION:
        return f"shift: values are {'higher' if effect > 0 else 'lower'} than before"
    if abs(moved := _superiority(a, b)) > _PLAIN_SHIFT:
        return f"shift: values are {'higher' if moved > 0 else 'lower'} than before"
    if view is View.RANGE:
        return "values come from a wider range than before" if effect > 0 else "values leave the range less often"
    middle = (np.cumsum(a) > 0.25) & (np.cumsum(a) < 0.75)
    wider = b[middle].sum() < a[middle].sum()
    return f"{'noise: values spread more' if wider else 'damping: values spread less'} than before"


def _listed(names: list[str]) -> str:
    plain = [name.removeprefix("-") for name in names]
    return f"{', '.join(plain[:-1])} and {plain[-1]}" if len(plain) > 1 else "".join(plain)


def _superiority(a: Floats, b: Floats) -> float:
    """Return how much likelier than not a value is larger now than one before, from -0.5 to 0.5; 0: as likely."""
    x, y = (
        a[MISSING + 1 :] / max(a[MISSING + 1 :].sum(), 1e-300),
        b[MISSING + 1 :] / max(b[MISSING + 1 :].sum(), 1e-300),
    )
    return float((y * (np.cumsum(x) - x / 2)).sum() - 0.5 * y.sum())


def _distance(a: Floats, b: Floats) -> float:
    """Total variation of the values that are not missing."""
    x, y = a[MISSING + 1 :], b[MISSING + 1 :]
    return float(np.abs(y / max(y.sum(), 1e-300) - x / max(x.sum(), 1e-300)).sum() / 2)
