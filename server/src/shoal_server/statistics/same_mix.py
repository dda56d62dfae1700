"""Whether another mix of classes (or any other column) is all that changed: the reference is given the current mix.

Rows of the reference are weighted so that each class has the share that it has now; what still differs then has changed
within the classes. Weighted rows count as fewer (Kish 1965, Survey Sampling: n over 1 + the squared variation of the
weights). Pure. Serves two files whose column says the class, and fleets, whose models say it.

Source: post-stratification, Holt and Smith 1979 (J. R. Statist. Soc. A 142).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.profile import ProfileSpec, summarise
from shoal_server.statistics.layout import Floats, Layout, Numbers
from shoal_server.statistics.views import Views, five_views

_BANDS = 10
_MOST_CLASSES = 64


@dataclass(frozen=True, eq=False)
class EqualMix:
    """What is left of a difference when the reference has the current mix.

    Attributes:
        column: Whose mix.
        views: Of the weighted reference against the current rows of classes that both have.
        p: Bonferroni over views and features, shape (F,).
        shrunk: Which features differ by less than half as much as before, shape (F,).
        rows: Places of reference rows that have the current mix, some of them several times.
    """

    column: str
    views: Views
    p: Floats
    shrunk: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        spec: ProfileSpec,
        reference: Mapping[str, npt.NDArray[Any]],
        current: Mapping[str, npt.NDArray[Any]],
        *,
        column: str,
        before: Views,
    ) -> EqualMix:
        """Compare two samples at an equal mix of one of their columns.

        Args:
            spec: On whose grids rows are counted.
            reference: Columns.
            current: The same.
            column: Texts are taken as classes, numbers in ten bands of the reference's.
            before: The views of the two samples as they are.
        """
        layout = Layout.of(spec)
        classes = _classes(reference[column], current[column])
        counts = [
            np.stack(
                [summarise(spec, {name: x[of == one] for name, x in side.items()}).cells for one in _both(classes)]
            )
            for side, of in zip((reference, current), classes, strict=True)
        ]
        rows = [np.array([np.sum(of == one) for one in _both(classes)], dtype=np.float64) for of in classes]
        weighted, effect = given_mix(counts[0], rows[0], rows[1])
        views = five_views(layout, weighted, counts[1].sum(axis=0), reference_effect=effect)
        sizes = [np.sqrt((one.effect**2).sum(axis=-1)) for one in (before, views)]
        p = np.minimum(1.0, views.p_value * layout.streams)
        places = _drawn(classes[0], dict(zip(_both(classes), rows[1] / np.maximum(rows[0], 1), strict=True)))
        return cls(column, views, p, sizes[1] < sizes[0] / 2, places)


def given_mix(by_class: Numbers, rows: Floats, wanted: Floats) -> tuple[Floats, float]:
    """Return the reference's counts as they would be with another mix of classes, and their design effect.

    Args:
        by_class: Counts of the reference's rows of each class, shape (K, size).
        rows: Of them, shape (K,).
        wanted: Rows of each class in the mix that is wanted; classes that the reference lacks are left out.
    """
    known = rows > 0
    share = np.where(known, wanted, 0.0) / max(float(wanted[known].sum()), 1e-300)
    weight = np.where(known, share / np.where(known, rows, 1.0), 0.0) * float(rows.sum())
    effect = float(rows.sum() * (rows * weight**2).sum() / max(float((rows * weight).sum()) ** 2, 1e-300))
    return np.asarray((by_class * weight[:, None]).sum(axis=0)), max(effect, 1.0)


def _drawn(classes: npt.NDArray[Any], weights: Mapping[Any, float]) -> npt.NDArray[np.int64]:
    """Draw as many rows as there are, by systematic sampling with the weights of their classes."""
    weight = np.array([weights.get(one, 0.0) for one in classes.tolist()])
    if not weight.sum():
        return np.arange(len(classes))
    at = (np.arange(len(classes)) + 0.5) / len(classes)
    return np.asarray(np.minimum(np.searchsorted(np.cumsum(weight) / weight.sum(), at), len(classes) - 1))


def _classes(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the class of each row; missing values are a class as well."""
    if before.dtype.kind == "O" or len(np.unique(before)) <= _BANDS:
        return before, now
    edges = np.nanquantile(before, np.arange(1, _BANDS) / _BANDS)
    return np.searchsorted(edges, before), np.searchsorted(edges, now)


def _both(classes: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> list[Any]:
    names, counts = np.unique(classes[0].astype(classes[1].dtype), return_counts=True)
    here = set(classes[1].tolist())
    ranked = [names[at] for at in np.argsort(-counts, kind="stable")[:_MOST_CLASSES]]
    return [one for one in ranked if one in here]
