"""Linear models, as formulas in double.

Owns ``x Wᵀ + b`` and what each model makes of it: a label, shares of the classes, or the inverse of a link. Operators
for linear models in ai.onnx.ml compute in float32, where large features cancel each other out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_converter.sources.formula import Formula

_LOGISTIC = frozenset({"LogisticRegression", "LogisticRegressionCV"})
CLASSIFIERS = frozenset(
    {
        *_LOGISTIC,
        *("SGDClassifier", "Perceptron", "PassiveAggressiveClassifier", "LinearSVC"),
        *("RidgeClassifier", "RidgeClassifierCV"),
    }
)
REGRESSORS = frozenset(
    {
        *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "Lars", "LarsCV"),
        *("LassoLars", "LassoLarsCV", "LassoLarsIC", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV"),
        *("BayesianRidge", "ARDRegression", "HuberRegressor", "TheilSenRegressor", "QuantileRegressor", "SGDRegressor"),
        *("PassiveAggressiveRegressor", "LinearSVR", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso"),
        *("MultiTaskLassoCV", "PoissonRegressor", "GammaRegressor", "TweedieRegressor"),
    }
)


def is_linear_classifier(model: Any) -> bool:
    """Tell whether a fitted model is a linear classifier of one label with a form here."""
    return (
        type(model).__name__ in CLASSIFIERS
        and type(model).__module__.startswith("sklearn.")
        and np.asarray(getattr(model, "classes_", None)).ndim == 1
        and len(model.classes_) > 1
        and np.shape(model.coef_)[0] == (1 if len(model.classes_) == 2 else len(model.classes_))
    )


def decision(f: Formula, model: Any, x: str) -> str:
    """Return the decision function, [N, 1] or [N, C]."""
    slope = np.asarray(model.coef_, dtype=np.float64)
    return f.affine(x, slope.T, np.asarray(model.intercept_, dtype=np.float64).reshape(1, -1))


def linear_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The class of the largest score, for two the second where it is above 0; shares, or the scores themselves."""
    scores = decision(f, model, f.x)
    if len(model.classes_) == 2:
        label = f.flat(f.node("Cast", f.node("Greater", scores, 0.0), to=7))
    else:
        label = f.largest(scores)
    shares = _shares(f, model, scores) if hasattr(model, "predict_proba") else scores
    return f.labels(model.classes_, label), shares


def _shares(f: Formula, model: Any, scores: str) -> str:
    """Softmax for logistic regression; else expit, or ``(clip(score) + 1) / 2`` (Zhang, KDD 2002), as shares of all."""
    two = len(model.classes_) == 2
    if type(model).__name__ in _LOGISTIC and not two:
        return f.node("Softmax", scores, axis=1)
    if getattr(model, "loss", None) == "modified_huber":
        clipped = f.node("Max", f.node("Min", scores, np.float64(1)), np.float64(-1))
        ones = f.node("Div", f.node("Add", clipped, 1.0), 2.0)
    else:
        ones = f.logistic(scores)
    if two:
        return f.node("Concat", f.node("Sub", 1.0, ones), ones, axis=1)
    total = f.total(ones)
    none = f.node("Equal", total, 0.0)
    share = f.node("Div", ones, f.node("Where", none, 1.0, total))
    return f.node("Where", none, 1.0 / len(model.classes_), share)


def linear_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """``x wᵀ + b``, of models with a logarithmic link its exponential."""
    slope = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    value = f.affine(f.x, slope.T, np.asarray(model.intercept_, dtype=np.float64).reshape(1, -1))
    return (f.node("Exp", value) if _logarithmic(model) else value,)


def _logarithmic(model: Any) -> bool:
    name = type(model).__name__
    if name == "TweedieRegressor":
        return bool(model.link == "log" or (model.link == "auto" and model.power > 0))
    return name in {"PoissonRegressor", "GammaRegressor"}
