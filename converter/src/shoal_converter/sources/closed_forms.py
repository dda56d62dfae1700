"""Own converters for estimators of closed form that skl2onnx lacks or gets wrong.

Owns one function an estimator, each with its formula: it takes a `Formula`, writes nodes, and returns the outputs in
the order of `estimator.answers`. `own_converters` says how skl2onnx is told of them, for one conversion at a time.
Whether a formula is right for some settings is parity's to say; those known to have none raise
RuntimeError, which names them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.frame_columns import MISSING_TEXT
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.kernels import kernel

Array = npt.NDArray[Any]
Form = Callable[[Formula, Any], tuple[str, ...]]

_SETTINGS = ("gamma", "degree", "coef0")


def by_affine(method: str) -> Form:
    """``x A + b`` for estimators that are affine maps: b is the answer to 0, row i of A that to e_i less b."""

    def form(formula: Formula, model: Any) -> tuple[str, ...]:
        width = int(model.n_features_in_)
        probe = np.random.default_rng(0).normal(size=(4, width))
        rows = np.concatenate([np.zeros((1, width)), np.eye(width), probe])
        found = getattr(model, method)(rows)
        found = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
        found = found.reshape(len(rows), -1)
        shift, slope = found[0], found[1 : width + 1] - found[0]
        if not np.allclose(probe @ slope + shift, found[width + 1 :], rtol=1e-6, atol=1e-8):
            raise RuntimeError(f"{type(model).__name__} with these settings is no affine map")
        return (formula.affine(formula.x, slope, shift),)

    return form


def bernoulli_rbm(f: Formula, model: Any) -> tuple[str, ...]:
    """``expit(x Wᵀ + c)``."""
    return (f.node("Sigmoid", f.affine(f.x, model.components_.T, model.intercept_hidden_)),)


def rbf_sampler(f: Formula, model: Any) -> tuple[str, ...]:
    """``sqrt(2 / D) cos(x W + w)``: random Fourier features."""
    angle = f.affine(f.x, model.random_weights_, model.random_offset_)
    return (f.node("Mul", f.node("Cos", angle), (2.0 / model.n_components) ** 0.5),)


def skewed_chi2_sampler(f: Formula, model: Any) -> tuple[str, ...]:
    """``sqrt(2 / D) cos(log(x + skew) W + w)``."""
    logs = f.node("Log", f.node("Add", f.x, float(model.skewedness)))
    angle = f.affine(logs, model.random_weights_, model.random_offset_)
    return (f.node("Mul", f.node("Cos", angle), (2.0 / model.n_components) ** 0.5),)


def additive_chi2_sampler(f: Formula, model: Any) -> tuple[str, ...]:
    """``sqrt(x s)``, then for each j ``sqrt(2 x s / cosh(π j s))`` times cos and sin of ``j s log x``; 0 at 0."""
    step = model.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[model.sample_steps]
    zero = f.node("Equal", f.x, 0.0)
    safe = f.node("Where", zero, 1.0, f.x)
    logs = f.node("Mul", f.node("Log", safe), float(step))
    parts = [f.node("Sqrt", f.node("Mul", f.x, float(step)))]
    for j in range(1, model.sample_steps):
        factor = f.node("Sqrt", f.node("Mul", f.x, float(2 * step / np.cosh(np.pi * j * step))))
        angle = f.node("Mul", logs, float(j))
        parts += [f.node("Mul", factor, f.node(turn, angle)) for turn in ("Cos", "Sin")]
    return (f.node("Concat", *parts, axis=1),)


def nystroem(f: Formula, model: Any) -> tuple[str, ...]:
    """``k(x, C) Nᵀ``."""
    settings = {**{key: getattr(model, key) for key in _SETTINGS}, **(model.kernel_params or {})}
    similar = kernel(f, f.x, model.components_, model.kernel, settings)
    return (f.node("MatMul", similar, model.normalization_.T),)


def kernel_ridge(f: Formula, model: Any) -> tuple[str, ...]:
    """``k(x, X) a``."""
    settings = {**{key: getattr(model, key) for key in _SETTINGS}, **(model.kernel_params or {})}
    similar = kernel(f, f.x, model.X_fit_, model.kernel, settings)
    return (f.node("MatMul", similar, np.asarray(model.dual_coef_).reshape(len(model.X_fit_), -1)),)


def kernel_centerer(f: Formula, model: Any) -> tuple[str, ...]:
    """``K - mean of fitted rows - mean of the own row + mean of all``."""
    own = f.node("Div", f.total(f.x), float(len(model.K_fit_rows_)))
    return (f.node("Sub", f.node("Add", f.x, float(model.K_fit_all_) - model.K_fit_rows_), own),)


def label_propagation(f: Formula, model: Any) -> tuple[str, ...]:
    """``k(x, X) Y``, each row divided by its sum."""
    if model.kernel != "rbf":
        raise RuntimeError(f"the kernel {model.kernel!r} has no form in ONNX; rbf has")
    similar = kernel(f, f.x, model.X_, "rbf", {"gamma": model.gamma})
    if np.asarray(model.X_).dtype == np.float32:  # far rows then vanish in scikit-learn, and so do all shares
        similar = f.node("Cast", f.node("Cast", similar, to=1), to=11)
    weights = f.node("MatMul", similar, model.label_distributions_)
    shares = f.node("Div", weights, f.total(weights))
    return f.labels(model.classes_, f.largest(shares)), shares


def linear_discriminant(f: Formula, model: Any) -> tuple[str, ...]:
    """``x Wᵀ + b``; for two classes expit of it, else softmax."""
    scores = f.affine(f.x, model.coef_.T, model.intercept_)
    if len(model.classes_) != 2:
        return f.labels(model.classes_, f.largest(scores)), f.node("Softmax", scores, axis=1)
    return _two_labels(f, model, scores), _with_complement(f, f.node("Sigmoid", scores))


def _two_labels(f: Formula, model: Any, scores: str) -> str:
    above = f.node("Cast", f.node("Greater", scores, 0.0), to=7)
    return f.labels(model.classes_, f.node("Reshape", above, np.array([-1])))


def _with_complement(f: Formula, share: str) -> str:
    return f.node("Concat", f.node("Sub", 1.0, share), share, axis=1)


def nearest_centre(f: Formula, model: Any) -> tuple[str, ...]:
    """The cluster whose centre is nearest."""
    return (f.nearest(f.squared_distances(f.x, model.cluster_centers_)),)


def birch(f: Formula, model: Any) -> tuple[str, ...]:
    """The cluster of the nearest subcluster; distances to all subclusters."""
    squares = f.squared_distances(f.x, model.subcluster_centers_)
    return f.labels(model.subcluster_labels_, f.nearest(squares)), f.node("Sqrt", squares)


def bisecting_kmeans(f: Formula, model: Any) -> tuple[str, ...]:
    """Down the tree of halves, each time to the nearer centre; distances to all centres."""
    mean = getattr(model, "_X_mean", 0.0)

    def label(node: Any) -> str:
        if node.left is None:
            return f.const(np.array([node.label], dtype=np.int64))
        near = f.nearest(f.squared_distances(f.x, np.stack([node.left.center, node.right.center]) + mean))
        return f.node("Where", f.node("Equal", near, np.array([0])), label(node.left), label(node.right))

    distances = f.node("Sqrt", f.squared_distances(f.x, model.cluster_centers_))
    return label(model._bisecting_tree), distances  # noqa: SLF001 - the fitted tree has no public name


def elliptic_envelope(f: Formula, model: Any) -> tuple[str, ...]:
    """``-(x - m) P (x - m)ᵀ - offset``; inside where that is not negative."""
    apart = f.node("Sub", f.x, model.location_)
    far = f.total(f.node("Mul", f.node("MatMul", apart, model.get_precision()), apart))
    scores = f.node("Sub", f.node("Neg", far), float(model.offset_))
    inside = f.node("Cast", f.node("GreaterOrEqual", f.node("Reshape", scores, np.array([-1])), 0.0), to=7)
    return f.labels([-1, 1], inside), scores


def nearest_centroid(f: Formula, model: Any) -> tuple[str, ...]:
    """Discriminant scores of the distances to the centroids, in units of the pooled deviation; softmax of them."""
    if model.metric != "euclidean":
        raise RuntimeError(f"the metric {model.metric!r} has no probabilities in scikit-learn; euclidean has")
    deviation = np.where(model.within_class_std_dev_ == 0, 1.0, model.within_class_std_dev_)
    scaled = f.node("Div", f.x, deviation)
    squares = f.squared_distances(scaled, model.centroids_ / deviation)
    scores = f.node("Sub", 2.0 * np.log(model.class_prior_), squares)
    label = f.largest(scores)
    if np.isclose(model.class_prior_, 1 / len(model.classes_)).all():  # predict() then leaves the deviation out
        label = f.nearest(f.squared_distances(f.x, model.centroids_))
    return f.labels(model.classes_, label), f.node("Softmax", scores, axis=1)


def isotonic(f: Formula, model: Any) -> tuple[str, ...]:
    """Linear between the thresholds; beyond them the end's value (clip) or missing (nan)."""
    return (isotonic_curve(f, model, f.x),)


def isotonic_curve(f: Formula, model: Any, given: str) -> str:
    """Return what a fitted IsotonicRegression gives for one column of values, [N, 1].

    Raises:
        RuntimeError: It refuses values beyond those of training.
    """
    x, y = np.asarray(model.X_thresholds_, np.float64), np.asarray(model.y_thresholds_, np.float64)
    if model.out_of_bounds == "raise":
        raise RuntimeError("out_of_bounds='raise' has no form in ONNX; 'clip' and 'nan' have")
    inner = f.node("Min", f.node("Max", given, float(x[0])), float(x[-1]))
    if len(x) == 1:
        value = f.node("Add", f.node("Mul", given, 0.0), float(y[0]))
    else:
        past = f.node("Cast", f.node("GreaterOrEqual", inner, x[np.newaxis, 1:-1]), to=7)
        at = f.node("ReduceSum", past, np.array([1]), keepdims=1)
        slope = np.diff(y) / np.diff(x)
        along = f.node("Mul", f.node("Sub", inner, f.node("Gather", x[:-1], at)), f.node("Gather", slope, at))
        value = f.node("Add", f.node("Gather", y[:-1], at), along)
    if model.out_of_bounds == "nan":
        value = f.node("Where", f.node("Equal", given, inner), value, np.nan)
    return value


def missing_indicator(f: Formula, model: Any) -> tuple[str, ...]:
    """1 where a value is missing."""
    return (f.node("Cast", f.columns(_gaps(f, model.missing_values), model.features_), to=11),)


def _gaps(f: Formula, missing: Any) -> str:
    if isinstance(missing, float) and np.isnan(missing):
        return f.node("IsNaN", f.x)
    return f.node("Equal", f.x, float(missing))


def simple_imputer(f: Formula, model: Any) -> tuple[str, ...]:
    """The statistic where a value is missing; columns without one are left out; then the indicator's columns."""
    statistics = np.asarray(model.statistics_, dtype=np.float64)
    kept = np.flatnonzero(~np.isnan(statistics))
    gaps = _gaps(f, model.missing_values)
    whole = f.columns(f.node("Where", gaps, statistics[np.newaxis], f.x), kept)
    if not model.add_indicator:
        return (whole,)
    marks = f.node("Cast", f.columns(gaps, model.indicator_.features_), to=11)
    return (f.node("Concat", whole, marks, axis=1),)


def text_imputer(f: Formula, model: Any) -> str:
    """The statistic where a text is missing, as the text that stands for a missing one says, or is the one named."""
    missing = model.missing_values if isinstance(model.missing_values, str) else MISSING_TEXT
    if not all(isinstance(value, str) for value in model.statistics_):
        raise RuntimeError("SimpleImputer of texts needs a text to fill in for every column")
    table: dict[str, Any] = {"keys_strings": [missing], "values_int64s": [1], "default_int64": 0}
    gaps = f.node("LabelEncoder", f.x, op_domain="ai.onnx.ml", op_version=2, **table)
    fill = np.asarray(model.statistics_, dtype=object).reshape(1, -1)
    return f.node("Where", f.node("Cast", gaps, to=9), fill, f.x)


def polynomial_features(f: Formula, model: Any) -> tuple[str, ...]:
    """Products of the features, each as often as its power says; 1 for those of none."""
    powers = np.asarray(model.powers_)  # [products, features]
    none = f.node("Add", f.node("Mul", f.number(f.node("IsNaN", f.columns(f.x, [0]))), 0.0), 1.0)
    rows, one = f.node("Concat", f.x, none, axis=1), powers.shape[1]
    factors = [np.repeat(np.arange(one), row) for row in powers]
    degree = max(1, *(len(each) for each in factors))
    places = np.array([[*each, *[one] * (degree - len(each))] for each in factors], dtype=np.int64)
    product = f.columns(rows, places[:, 0])
    for at in range(1, degree):
        product = f.node("Mul", product, f.columns(rows, places[:, at]))
    return (product,)


def selection(f: Formula, model: Any) -> tuple[str, ...]:
    """The chosen columns."""
    return (f.columns(f.x, np.flatnonzero(model.get_support())),)


def dummy_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """A constant."""
    return (_constant_rows(f, np.asarray(model.constant_, dtype=np.float64).reshape(1, -1)),)


def dummy_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """A constant class with its share; drawn answers have no exact form."""
    if model.strategy not in {"prior", "most_frequent", "constant"}:
        raise RuntimeError(f"strategy={model.strategy!r} draws its answers at random")
    rows = np.zeros((1, int(model.n_features_in_)))
    shares = _constant_rows(f, np.asarray(model.predict_proba(rows), dtype=np.float64))
    at = int(np.flatnonzero(model.classes_ == model.predict(rows)[0])[0])
    zeros = f.node("Cast", f.node("Mul", f.columns(shares, 0), 0.0), to=7)
    return f.labels(model.classes_, f.node("Add", zeros, np.array(at))), shares


def _constant_rows(f: Formula, row: Array) -> str:
    count = f.node("Slice", f.node("Shape", f.x), np.array([0]), np.array([1]))
    return f.node("Expand", row, f.node("Concat", count, np.array([row.shape[1]]), axis=0))


def thresholded(f: Formula, model: Any, threshold: float | str) -> tuple[str, ...]:
    """The positive class where its score reaches the threshold; the inner classifier's scores as they are."""
    inner, scores = model.estimator_, f.inputs[1]
    by_share = hasattr(inner, "predict_proba")
    if model.response_method not in {"auto", "predict_proba" if by_share else "decision_function"}:
        raise RuntimeError(f"response_method={model.response_method!r} needs scores that the model doesn't give")
    if threshold == "auto":
        threshold = 0.5 if by_share else 0.0
    named = getattr(model, "pos_label", None)
    at = 1 if named is None else int(np.flatnonzero(model.classes_ == named)[0])
    one = f.columns(scores, [at]) if by_share else f.node("Reshape", scores, np.array([-1, 1]))
    one = f.node("Neg", one) if not by_share and at == 0 else one
    above = f.node("Cast", f.node("GreaterOrEqual", f.node("Reshape", one, np.array([-1])), float(threshold)), to=7)
    return f.labels(model.classes_[[1 - at, at]], above), scores
