"""Scores of classifiers that give probabilities as well, as formulas.

scikit-learn's calibrators, stacks and thresholds take a classifier's decision function where it has one, and exported
graphs give its probabilities. Owns one function a kind of classifier, [N, 1] for two classes and [N, C] for more, in
double all the way: a monotone curve behind it may rise steeply.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.boosting.models import is_boosting
from shoal_converter.sources.compositions import one_vs_rest_scores
from shoal_converter.sources.estimator import last_step
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.gradient_boosting import boosted_scores
from shoal_converter.sources.histograms import histogram_scores
from shoal_converter.sources.inlining import Decision, Inner
from shoal_converter.sources.linear import decision, is_linear_classifier
from shoal_converter.sources.stacking import stacked_scores


def decision_form(model: Any) -> Decision | None:
    """Return how a classifier's scores are computed beside its probabilities; none where there is no form for them."""
    if is_boosting(model) and hasattr(model, "decision_function"):
        return _of_a_framework
    if not type(model).__module__.startswith("sklearn."):
        return None
    if is_linear_classifier(model):
        return _linear
    return None if _gives_scores_alone(model) else _FORMS.get(type(model).__name__)


def _gives_scores_alone(model: Any) -> bool:
    return not hasattr(model, "predict_proba") and hasattr(model, "decision_function")


def has_scores(model: Any) -> bool:
    """Tell whether the scores of a classifier can be had, where it has any."""
    both = hasattr(model, "decision_function") and hasattr(model, "predict_proba")
    return not both or decision_form(last_step(model)) is not None


def can_be_stacked(model: Any) -> bool:
    """Tell whether what the last estimator takes can be had of every one before it; of one output, too."""
    asked = zip(model.estimators_, model.stack_method_, strict=True)
    single = not isinstance(getattr(model, "_label_encoder", None), list)
    return single and all(method != "decision_function" or has_scores(each) for each, method in asked)


def _of_a_framework(_: Formula, inner: Inner, model: Any, x: str | None) -> str:
    return inner.raw_scores(model, x, 0 if x is None else model.n_features_in_)


def _boosted(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    x = inner.matrix() if x is None else x
    return boosted_scores(f, inner, model, x)


def _histogram(f: Formula, _: Inner, model: Any, x: str | None) -> str:
    return histogram_scores(f, model, x)


def _adaptive(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    """The trees' weighted votes (SAMME; Zhu et al., 2009): ``w`` for the class voted for, else ``-w / (C - 1)``."""
    x = inner.matrix() if x is None else x
    count, texts = len(model.classes_), np.asarray(model.classes_).dtype.kind in "OUS"
    weights = np.asarray(model.estimator_weights_, dtype=np.float64)[: len(model.estimators_)]
    total = ""
    for step, weight in zip(model.estimators_, weights, strict=True):
        label = f.as_columns(inner.label(step, x, model.n_features_in_))
        place = f.place(label if texts else f.node("Cast", label, to=TensorProto.DOUBLE), model.classes_)
        votes = np.full((count + 1, count), -weight / (count - 1))
        votes[np.arange(count), np.arange(count)] = weight
        vote = f.node("Gather", votes, f.flat(place))
        total = vote if not total else f.node("Add", total, vote)
    scores = f.node("Div", total, float(model.estimator_weights_.sum()))
    return f.node("Sub", f.columns(scores, [1]), f.columns(scores, [0])) if count == 2 else scores


def _bagged(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    """The mean of the scores of classifiers that each see some of the features (Breiman, 1996)."""
    x = inner.matrix() if x is None else x
    total = ""
    for step, features in zip(model.estimators_, model.estimators_features_, strict=True):
        score = inner.decision(step, f.columns(x, features), len(features))
        total = score if not total else f.node("Add", total, score)
    return f.node("Div", total, float(len(model.estimators_)))


def _without_probabilities(_: Formula, inner: Inner, model: Any, x: str | None) -> str:
    plain = copy.copy(model)
    plain.probability = False
    none = {"_effective_probability": False, "_probA": np.empty(0), "_probB": np.empty(0)}  # as if fitted without
    vars(plain).update(none)
    return inner.given_scores(plain, x, 0 if x is None else model.n_features_in_)


def _linear(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    x = inner.matrix() if x is None else x
    return decision(f, model, x)


def _quadratic(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    """Logarithm of each class's density times its share, but for a constant (Hastie et al., ESL, eq. 4.12)."""
    x = inner.matrix() if x is None else x
    columns = []
    for rotation, scaling, mean, prior in zip(
        model.rotations_, model.scalings_, model.means_, model.priors_, strict=True
    ):
        slope = np.asarray(rotation) * np.asarray(scaling) ** -0.5
        along = f.node("MatMul", f.node("Sub", x, np.asarray(mean)[np.newaxis]), slope)
        norm = f.total(f.node("Mul", along, along))
        constant = float(np.log(prior) - 0.5 * np.sum(np.log(scaling)))
        columns.append(f.node("Add", f.node("Mul", norm, -0.5), constant))
    if len(columns) == 2:
        return f.node("Sub", columns[1], columns[0])
    return f.node("Concat", *columns, axis=1)


def _against_the_rest(f: Formula, inner: Inner, model: Any, x: str | None) -> str:
    x = inner.matrix() if x is None else x
    return one_vs_rest_scores(f, inner, model, x)


def _inside(_: Formula, inner: Inner, model: Any, x: str | None) -> str:
    return inner.decision(model.estimator_, x, 0 if x is None else model.n_features_in_)


_FORMS: dict[str, Decision] = {
    "GradientBoostingClassifier": _boosted,
    "HistGradientBoostingClassifier": _histogram,
    "AdaBoostClassifier": _adaptive,
    "BaggingClassifier": _bagged,
    "SVC": _without_probabilities,
    "NuSVC": _without_probabilities,
    "LinearDiscriminantAnalysis": _linear,
    "QuadraticDiscriminantAnalysis": _quadratic,
    "OneVsRestClassifier": _against_the_rest,
    "StackingClassifier": stacked_scores,
    "SelfTrainingClassifier": _inside,
    "FixedThresholdClassifier": _inside,
    "TunedThresholdClassifierCV": _inside,
}
