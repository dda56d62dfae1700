"""Estimators that ask for the nearest training rows, as formulas.

Owns distances and the choice of neighbours. A tree of rows (kd_tree, ball_tree) adds the features' differences one
after another, and brute force multiplies matrices (``x² - 2xy + y²``): each is written as scikit-learn computes it, so
that near ties fall alike. `ties` decides which of equally far rows is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.ties import Last, settled, visits

Array = npt.NDArray[Any]

_DIRECT = frozenset({"kd_tree", "ball_tree"})


@dataclass(frozen=True)
class Metric:
    """How far two rows are apart: ``(sum |d|^power)^(1/power)``, or the largest ``|d|`` for infinity.

    Attributes:
        power: 1, 2, another number, or infinity.
        direct: Whether squares are those of differences, as in trees, and not by a product of matrices.
    """

    power: float
    direct: bool

    def reduced(self, f: Formula, x: str, points: Array) -> str:
        """Return the power of the distances, [N, K]: cheaper, in the same order."""
        points = np.asarray(points, dtype=np.float64)
        if self.power == 2.0 and not self.direct:
            return self._by_product(f, x, points)
        total = ""
        for at in range(points.shape[1]):
            part = self.part(f, f.node("Sub", f.columns(x, [at]), points[np.newaxis, :, at]))
            total = part if not total else self.sum(f, total, part)
        return total

    def _by_product(self, f: Formula, x: str, points: Array) -> str:
        """Return squares from a product of matrices, the rows' norms too: so both are rounded as BLAS rounds them."""
        row, column = f.node("Unsqueeze", x, np.array([1])), f.node("Unsqueeze", x, np.array([2]))
        own = f.node("Squeeze", f.node("MatMul", row, column), np.array([2]))
        cross = f.node("Add", own, f.node("MatMul", x, -2.0 * points.T))
        return f.node("Max", f.node("Add", cross, np.array([point @ point for point in points])), np.float64(0))

    def sum(self, f: Formula, total: str, part: str) -> str:
        """Return what features before and a further one add to the power of a distance."""
        return f.node("Max" if np.isinf(self.power) else "Add", total, part)

    def part(self, f: Formula, apart: str) -> str:
        """Return what one feature's difference adds to the power of a distance."""
        if self.power == 2.0:
            return f.node("Mul", apart, apart)
        size = f.node("Abs", apart)
        return size if self.power == 1.0 or np.isinf(self.power) else f.node("Pow", size, float(self.power))

    def length(self, f: Formula, reduced: str) -> str:
        """Return the distance of its power."""
        if self.power == 2.0:
            return f.node("Sqrt", reduced)
        plain = self.power == 1.0 or np.isinf(self.power)
        return reduced if plain else f.node("Pow", reduced, 1.0 / self.power)

    def reduce(self, length: float) -> float:
        """Return a distance's power."""
        return length if np.isinf(self.power) else length**self.power


def metric_of(model: Any) -> Metric:
    """Return the metric that a fitted estimator of neighbours uses.

    Raises:
        RuntimeError: A metric that is not of Minkowski's kind, or with weights.
    """
    name, settings = model.effective_metric_, dict(model.effective_metric_params_ or {})
    powers = {"euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "l1": 1.0, "cityblock": 1.0, "chebyshev": np.inf}
    power = powers.get(name, settings.get("p", 2.0) if name == "minkowski" else None) if isinstance(name, str) else None
    if power is None or settings.get("w") is not None:
        raise RuntimeError(f"the metric {name!r} has no form in ONNX; euclidean, manhattan and minkowski have")
    return Metric(float(power), model._fit_method in _DIRECT)  # noqa: SLF001 - it decides how near ties fall


def nearest(f: Formula, model: Any, x: str, count: int) -> tuple[str, str]:
    """Return distances and places of the nearest training rows, both [N, count], the nearest first."""
    metric, points = metric_of(model), _points(model)
    reduced = metric.reduced(f, x, points)
    least, places = f.smallest(reduced, min(count + 1, len(points)))
    if count < len(points):
        order = (lambda rows: visits(f, model._tree, _bounds(f, model, metric, rows))) if metric.direct else None  # noqa: SLF001 - fitted, without a public name
        places = settled(f, x, reduced, (least, places), Last(count, len(points), order))
        least = f.columns(least, range(count))
    return metric.length(f, least), places


def _bounds(f: Formula, model: Any, metric: Metric, x: str) -> str:
    """Return how near each node of the model's tree may be, as a power of the distance, [N, nodes].

    A box is as far as its nearest corner or side; a ball, as its centre less its radius.
    """
    _, _, nodes, bounds = (np.asarray(part) for part in model._tree.get_arrays())  # noqa: SLF001 - as above
    if model._fit_method == "ball_tree":  # noqa: SLF001 - as above
        centres = metric.length(f, metric.reduced(f, x, bounds[0]))
        return f.node("Max", f.node("Sub", centres, nodes["radius"][np.newaxis]), np.float64(0))
    total = ""
    for at in range(bounds.shape[2]):
        value = f.columns(x, [at])
        below = f.node("Sub", bounds[0, np.newaxis, :, at], value)
        above = f.node("Sub", value, bounds[1, np.newaxis, :, at])
        part = metric.part(f, f.node("Max", f.node("Max", below, above), np.float64(0)))
        total = part if not total else metric.sum(f, total, part)
    return total


def within(f: Formula, model: Any) -> tuple[str, str]:
    """Return all distances and whether they are within the radius, both [N, K]."""
    metric = metric_of(model)
    reduced = metric.reduced(f, f.x, _points(model))
    return metric.length(f, reduced), f.node("LessOrEqual", reduced, metric.reduce(float(model.radius)))


def _points(model: Any) -> Array:
    return np.asarray(model._fit_X, dtype=np.float64)  # noqa: SLF001 - the training rows have no public name


def weights(f: Formula, kind: Any, distances: str) -> str:
    """Return each neighbour's weight: 1, or ``1 / d``; where some are at no distance, those alone count.

    Raises:
        RuntimeError: Weights by a function of the user's own.
    """
    if kind in {"uniform", None}:
        return f.node("Add", f.node("Mul", f.number(f.node("Equal", distances, -1.0)), 0.0), 1.0)
    if kind != "distance":
        raise RuntimeError("weights by a function are a program, which ONNX can't hold; 'uniform' and 'distance' work")
    same = f.node("Equal", distances, 0.0)
    any_same = f.node("Greater", f.total(f.number(same)), 0.0)
    inverse = f.node("Div", 1.0, f.node("Where", same, 1.0, distances))
    return f.node("Where", any_same, f.number(same), inverse)


def _share(f: Formula, votes: str) -> str:
    total = f.total(votes)
    return f.node("Div", votes, f.node("Where", f.node("Equal", total, 0.0), 1.0, total))


def kneighbors_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The class with most weight among the neighbours, the first of equals; each class's share of the weight."""
    distances, places = nearest(f, model, f.x, model.n_neighbors)
    one_hot = np.eye(len(model.classes_))[model._y.ravel()]  # noqa: SLF001 - places of the training rows' classes
    votes = _weighted(f, model.weights, distances, f.node("Gather", one_hot, places))
    return f.labels(model.classes_, f.largest(votes)), _share(f, votes)


def kneighbors_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """The weighted mean of the neighbours' values."""
    distances, places = nearest(f, model, f.x, model.n_neighbors)
    values = np.asarray(model._y, dtype=np.float64).reshape(len(model._y), -1)  # noqa: SLF001 - the training values
    total = _weighted(f, model.weights, distances, f.node("Gather", values, places))
    return (f.node("Div", total, f.total(weights(f, model.weights, distances))),)


def _weighted(f: Formula, kind: Any, distances: str, values: str) -> str:
    """Return the weighted sum over the neighbours: values [N, k, C] become [N, C]."""
    each = f.node("Unsqueeze", weights(f, kind, distances), np.array([2]))
    return f.node("ReduceSum", f.node("Mul", each, values), np.array([1]), keepdims=0)


def radius_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """As with k neighbours, of those within the radius.

    A row with no neighbour gets the outlier label. Where there is none scikit-learn raises, and so does the graph: it
    looks up a class that isn't there.
    """
    distances, inside = within(f, model)
    weight = f.node("Mul", weights(f, model.weights, _only(f, inside, distances)), f.number(inside))
    votes = f.node("MatMul", weight, np.eye(len(model.classes_))[model._y.ravel()])  # noqa: SLF001 - as above
    alone = f.node("Equal", f.total(f.number(inside)), 0.0)
    label = f.largest(votes)
    outlier = model.outlier_label_
    if outlier is None:
        beyond = f.node("Where", f.flat(alone), np.array(len(model.classes_)), label)
        return f.labels(model.classes_, beyond), _share(f, votes)
    known = np.flatnonzero(model.classes_ == outlier[0])
    share = _share(f, votes)
    if known.size:
        share = f.node("Where", alone, np.eye(len(model.classes_))[known], share)
    texts = [*model.classes_.tolist(), *np.asarray(outlier[0]).reshape(-1).tolist()]
    return f.labels(texts, f.node("Where", f.flat(alone), np.array(len(model.classes_)), label)), share


def _only(f: Formula, inside: str, distances: str) -> str:
    """Return the distances inside, and beyond any of them the others, which must not count as being the same row."""
    return f.node("Where", inside, distances, np.inf)


def radius_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """The weighted mean of the values within the radius; missing where there is none."""
    distances, inside = within(f, model)
    weight = f.node("Mul", weights(f, model.weights, _only(f, inside, distances)), f.number(inside))
    values = np.asarray(model._y, dtype=np.float64).reshape(len(model._y), -1)  # noqa: SLF001 - the training values
    return (f.node("Div", f.node("MatMul", weight, values), f.total(weight)),)


def kneighbors_transformer(f: Formula, model: Any) -> tuple[str, ...]:
    """Distances (or 1) in the columns of the nearest training rows, else 0."""
    far = model.mode == "distance"
    distances, places = nearest(f, model, f.x, model.n_neighbors + far)
    zeros = f.node("Mul", f.node("MatMul", f.x, np.zeros((model.n_features_in_, model.n_samples_fit_))), 0.0)
    given = distances if far else weights(f, "uniform", distances)
    return (f.node("ScatterElements", zeros, places, given, axis=1),)


def radius_transformer(f: Formula, model: Any) -> tuple[str, ...]:
    """Distances (or 1) in the columns of the training rows within the radius, else 0."""
    distances, inside = within(f, model)
    return (f.node("Where", inside, distances if model.mode == "distance" else 1.0, 0.0),)


def local_outlier_factor(f: Formula, model: Any) -> tuple[str, ...]:
    """Density of the neighbours by that of the row, negative, less the offset (Breunig et al., SIGMOD 2000)."""
    count = model.n_neighbors_
    distances, places = nearest(f, model, f.x, count)
    kth = np.asarray(model._distances_fit_X_, np.float64)[:, count - 1]
    reach = f.node("Max", distances, f.node("Gather", kth, places))
    density = f.node("Add", f.node("Div", f.total(reach), float(count)), 1e-10)  # its inverse
    around = f.node("Gather", np.asarray(model._lrd, np.float64), places)  # noqa: SLF001 - as above
    factor = f.node("Div", f.total(f.node("Mul", around, density)), float(count))
    scores = f.node("Sub", f.node("Neg", factor), float(model.offset_))
    inside = f.node("Cast", f.node("GreaterOrEqual", f.flat(scores), 0.0), to=7)
    return f.labels([-1, 1], inside), scores


def isomap(f: Formula, model: Any) -> tuple[str, ...]:
    """Shortest paths through the nearest training rows, then kernel PCA (Tenenbaum et al., Science 2000)."""
    if model.n_neighbors is None:
        raise RuntimeError("Isomap by a radius has no form in ONNX; by n_neighbors it has")
    distances, places = nearest(f, model.nbrs_, f.x, model.n_neighbors)
    paths = np.asarray(model.dist_matrix_, dtype=np.float64)
    shortest = ""
    for at in range(model.n_neighbors):
        way = f.node("Add", f.node("Gather", paths, f.flat(f.columns(places, [at]))), f.columns(distances, [at]))
        shortest = way if not shortest else f.node("Min", shortest, way)
    kernel = f.node("Mul", f.node("Mul", shortest, shortest), -0.5)
    pca, centre = model.kernel_pca_, model.kernel_pca_._centerer  # noqa: SLF001 - fitted, without a public name
    own = f.node("Div", f.total(kernel), float(len(centre.K_fit_rows_)))
    centred = f.node("Sub", f.node("Add", kernel, float(centre.K_fit_all_) - centre.K_fit_rows_), own)
    used = np.flatnonzero(pca.eigenvalues_)
    axes = np.zeros_like(pca.eigenvectors_)
    axes[:, used] = pca.eigenvectors_[:, used] / np.sqrt(pca.eigenvalues_[used])
    return (f.node("MatMul", centred, axes),)


def locally_linear_embedding(f: Formula, model: Any) -> tuple[str, ...]:
    """The row as a mixture of its neighbours, in the embedded space (Roweis and Saul, Science 2000)."""
    count = model.n_neighbors
    _, places = nearest(f, model.nbrs_, f.x, count)
    apart = f.node("Sub", f.node("Gather", _points(model.nbrs_), places), f.node("Unsqueeze", f.x, np.array([1])))
    gram = f.node("MatMul", apart, f.node("Transpose", apart, perm=[0, 2, 1]))
    trace = f.node("ReduceSum", f.node("Mul", gram, np.eye(count)), np.array([1, 2]), keepdims=1)
    ridge = f.node("Where", f.node("Greater", trace, 0.0), f.node("Mul", trace, float(model.reg)), float(model.reg))
    gram = f.node("Add", gram, f.node("Mul", ridge, np.eye(count)))
    ones = f.node("Add", f.node("Mul", f.node("ReduceSum", gram, np.array([2]), keepdims=1), 0.0), 1.0)
    mixture = f.solved(gram, ones, count)  # [N, k, 1]
    mixture = f.node("Div", mixture, f.node("ReduceSum", mixture, np.array([1]), keepdims=1))
    embedded = f.node("Gather", np.asarray(model.embedding_, dtype=np.float64), places)
    return (f.node("ReduceSum", f.node("Mul", mixture, embedded), np.array([1]), keepdims=0),)
