"""Steps in the middle of a pipeline, which are asked for transformed rows only, and never for a label.

skl2onnx gives every output of a clusterer or a classifier to the step behind it, the label among them. Here each such
step, wherever `transform` is what is asked of it, is replaced by one of this module, whose formula gives its rows
alone. The model itself is never changed: what is rewritten is a shallow copy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal_converter.sources.closed_forms import by_affine
from shoal_converter.sources.formula import Formula

_CENTRES = {
    **dict.fromkeys(("KMeans", "MiniBatchKMeans", "BisectingKMeans"), "cluster_centers_"),
    "Birch": "subcluster_centers_",
}
_AFFINE = frozenset({"LinearDiscriminantAnalysis", "PLSRegression", "PLSCanonical", "CCA"})


@dataclass(frozen=True, eq=False)
class MiddleStep:
    """An estimator that predicts too, of which only `transform` is wanted.

    Attributes:
        estimator: Fitted.
    """

    estimator: Any

    @property
    def n_features_in_(self) -> int:
        """Number of columns that it takes."""
        return int(self.estimator.n_features_in_)

    def transform(self, rows: Any) -> Any:
        """Return the transformed rows."""
        return self.estimator.transform(rows)

    def get_params(self, *, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - scikit-learn's signature
        """Return no parameters: it is fitted, and never cloned."""
        return {}


def middle_step(f: Formula, model: MiddleStep) -> tuple[str, ...]:
    """Distances to the centres of clusters, or the affine map onto components."""
    estimator = model.estimator
    centres = _CENTRES.get(type(estimator).__name__)
    if centres is None:
        return by_affine("transform")(f, estimator)
    points = np.asarray(getattr(estimator, centres), dtype=np.float64)
    return (f.node("Sqrt", f.squared_distances(f.x, points)),)


def with_middle_steps(model: Any) -> Any:
    """Return a model whose steps before its end are ones for `transform` alone, or the model where there are none."""
    if not hasattr(model, "steps"):
        return as_transformer(model) if hasattr(model, "transformer_list") or hasattr(model, "transformers_") else model
    *before, (name, last) = model.steps
    return _replaced(
        model, "steps", [*((n, as_transformer(step)) for n, step in before), (name, with_middle_steps(last))]
    )


def as_transformer(step: Any) -> Any:
    """Return what stands for a step of which only `transform` is asked."""
    if isinstance(step, str) or step is None:
        return step
    if hasattr(step, "steps"):
        return _replaced(step, "steps", [(name, as_transformer(each)) for name, each in step.steps])
    if hasattr(step, "transformer_list"):
        return _replaced(
            step, "transformer_list", [(name, as_transformer(each)) for name, each in step.transformer_list]
        )
    if hasattr(step, "transformers_"):
        kept = [(name, as_transformer(each), columns) for name, each, columns in step.transformers_]
        return _replaced(step, "transformers_", kept)
    is_known = type(step).__name__ in _CENTRES or type(step).__name__ in _AFFINE
    return MiddleStep(step) if is_known and type(step).__module__.startswith("sklearn.") else step


def _replaced(model: Any, attribute: str, value: Any) -> Any:
    changed = copy.copy(model)
    setattr(changed, attribute, value)
    return changed
