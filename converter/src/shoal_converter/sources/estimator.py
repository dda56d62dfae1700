"""What a fitted scikit-learn estimator is and says: its steps, its task, and its outputs on rows.

Owns the reading side of scikit-learn; `sklearn_export` owns the way into ONNX. An estimator is asked through its public
methods only: label and probabilities or scores for classifiers, a value for regressors, a label and distances for
clusterers, label and scores for outlier detectors, the transformed rows else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SourceError, UnsupportedModelError
from shoal_converter.sources.boosting.models import framework as boosting_framework
from shoal_converter.sources.misfits import misfit
from shoal_converter.sources.tensor_model import TensorModel
from shoal_protocol.profile.grid import category_text

Array = npt.NDArray[Any]

_INSIDE = {
    "FrozenEstimator": "estimator",
    "SelfTrainingClassifier": "estimator_",
    "TransformedTargetRegressor": "regressor_",
    "FixedThresholdClassifier": "estimator_",
    "TunedThresholdClassifierCV": "estimator_",
}
"""Estimators around one other, and the attribute that holds it fitted."""

_OF_SEVERAL = frozenset(
    {
        *("BaggingClassifier", "BaggingRegressor", "AdaBoostClassifier", "AdaBoostRegressor", "ClassifierChain"),
        *("RegressorChain", "MultiOutputClassifier", "MultiOutputRegressor", "OneVsOneClassifier"),
        *("OneVsRestClassifier", "OutputCodeClassifier"),
    }
)
"""Estimators that hold several fitted ones of any kind."""

Task = Literal["classification", "regression", "transform", "clustering", "anomaly", "other"]
Role = Literal["label", "probabilities", "scores", "value", "other"]


@dataclass(frozen=True, eq=False)
class Answer:
    """One output of the source model.

    Attributes:
        name: ``label``, ``probabilities``, ``scores``, ``value`` or ``transformed``.
        role: The same, as the schema says it.
        values: On the sample's rows, as scikit-learn gives them (dense).
        classes: Texts of the classes, where they are known.
    """

    name: str
    role: Role
    values: Array
    classes: tuple[str, ...] | None = None


def check_estimator(model: Any) -> None:
    """Refuse what is no fitted scikit-learn estimator.

    Raises:
        SourceError: It is a class, another object, or not fitted.
    """
    from sklearn.exceptions import NotFittedError  # noqa: PLC0415 - heavy
    from sklearn.utils.validation import check_is_fitted  # noqa: PLC0415 - heavy

    if isinstance(model, type):
        raise SourceError(f"{model.__name__} is a class, expected a fitted model", hint="call .fit(X, y) first")
    if not hasattr(model, "get_params") or not hasattr(model, "fit"):
        raise SourceError(
            f"{type(model).__name__} is no scikit-learn estimator or pipeline", hint=_where_the_model_is(model)
        )
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise SourceError(
            f"the model is not fitted: {type(model).__name__} has learnt nothing yet",
            hint="call .fit(X, y) before packing; after a search, pack it or its best_estimator_",
        ) from error


def _where_the_model_is(found: Any) -> str:
    """Say what to give in place of an object that is no model."""
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, (list, tuple)) else ()
    inside = next((key for key, value in items if hasattr(value, "fit") and hasattr(value, "get_params")), None)
    if inside is not None:
        return f"it holds one: give the estimator itself, found[{inside!r}], and dump that alone"
    return "give the fitted estimator itself, not a dictionary around it or its predictions"


_REASONS = {
    **dict.fromkeys(
        ("DictVectorizer", "FeatureHasher"),
        ("it takes dictionaries, and a device feeds tensors", "make a DataFrame of them before training"),
    ),
    "PatchExtractor": ("it takes images and gives more rows than it got", "cut the patches before the model"),
    **dict.fromkeys(
        ("LabelEncoder", "LabelBinarizer", "MultiLabelBinarizer"),
        ("it is made for targets and not for rows", "pack the model; its labels are in the bundle"),
    ),
}
"""Estimators whose input no bundle can have: why, and a way round."""


def refuse_input(model: Any) -> None:
    """Refuse an estimator that takes something else than rows of numbers or texts.

    Raises:
        UnsupportedModelError: With the step's path.
    """
    for path, step in steps(model):
        name = type(step).__name__
        if name in _REASONS and type(step).__module__.startswith("sklearn."):
            raise UnsupportedModelError(path, f"{name}: {_REASONS[name][0]}", _REASONS[name][1])


def children(model: Any) -> list[tuple[str, Any]]:
    """Return the named estimators directly inside one, in the order in which they work; empty for a leaf."""
    inside = "best_estimator_" if hasattr(model, "best_estimator_") else _INSIDE.get(type(model).__name__)
    if inside is not None:
        return [(inside, getattr(model, inside))]
    if hasattr(model, "steps"):
        return list(model.steps)
    if hasattr(model, "transformers_"):
        return [
            (name, step) for name, step, columns in model.transformers_ if isinstance(columns, slice) or len(columns)
        ]
    if hasattr(model, "transformer_list"):
        return list(model.transformer_list)
    named = getattr(model, "named_estimators_", None)
    if named is not None:
        final = getattr(model, "final_estimator_", None)
        return [*named.items(), *([] if final is None else [("final_estimator_", final)])]
    if hasattr(model, "calibrated_classifiers_"):
        return [("estimator", model.calibrated_classifiers_[0].estimator)]
    if type(model).__name__ in _OF_SEVERAL:
        named = [(f"estimators_[{at}]", each) for at, each in enumerate(model.estimators_)]
        return [(name, each) for name, each in named if not type(each).__name__.startswith("_")]
    return []


def steps(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every estimator with its path, the outer ones first."""
    yield path or type(model).__name__, model
    for name, child in children(model):
        if not isinstance(child, str) and child is not None:
            yield from steps(child, f"{path}.{name}" if path else name)


def last_step(model: Any) -> Any:
    """Return the estimator that gives the outputs: the last of a pipeline, the best of a search."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif type(model).__name__ in _INSIDE:
            model = getattr(model, _INSIDE[type(model).__name__])
        elif hasattr(model, "steps") and model.steps[-1][1] not in {"passthrough", None}:
            model = model.steps[-1][1]
        else:
            return model


def first_step(model: Any) -> Any:
    """Return the estimator that sees the rows first."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "steps"):
            model = next((step for _, step in model.steps if step not in {"passthrough", None}), model.steps[0][1])
        else:
            return model


def task_of(model: Any) -> Task:
    """Return what kind of model it is."""
    if isinstance(model, TensorModel):
        return cast("Task", model.task)
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor  # noqa: PLC0415 - heavy

    if is_classifier(model):
        return "classification"
    if is_regressor(model):
        return "regression"
    if is_outlier_detector(model):
        return "anomaly"
    if is_clusterer(model) and not hasattr(model, "predict") and hasattr(model, "transform"):
        return "transform"  # FeatureAgglomeration: it is columns that are clustered
    if is_clusterer(model) or (hasattr(model, "predict_proba") and hasattr(model, "predict")):
        return "clustering"
    if hasattr(model, "transform"):
        return "transform"
    return "other"


def missing_allowed(model: Any) -> bool:
    """Tell whether the model says that it takes NaN; a graph doesn't, so there the sample tells it."""
    if isinstance(model, TensorModel):
        return False
    from sklearn.utils import get_tags  # noqa: PLC0415 - heavy

    try:
        return bool(get_tags(model).input_tags.allow_nan)
    except (AttributeError, TypeError, ValueError):
        return False


def unknown_allowed(model: Any) -> bool:
    """Tell whether a step of the model says that it takes categories that training never saw."""
    parameters = model.get_params(deep=True) if hasattr(model, "get_params") else {}
    return any(name.rpartition("__")[2] == "handle_unknown" and value != "error" for name, value in parameters.items())


def answers(model: Any, rows: Any) -> tuple[Answer, ...]:
    """Return what the source model says on rows: the truth that parity compares with.

    Args:
        model: Fitted.
        rows: What its methods take.

    Raises:
        SampleError: The model refuses these rows.
        UnsupportedModelError: It can't answer for new rows at all.
    """
    task = task_of(model)
    plan: dict[Task, list[tuple[str, Role, tuple[str, ...]]]] = {
        "classification": [("label", "label", ("predict",)), ("", "other", ("predict_proba", "decision_function"))],
        "regression": [("value", "value", ("predict",))],
        "anomaly": [("label", "label", ("predict",)), ("", "other", ("decision_function",))],
        "clustering": [("label", "label", ("predict",)), ("", "other", ("predict_proba", "transform"))],
        "transform": [("transformed", "other", ("transform",))],
        "other": [("value", "value", ("predict",))],
    }
    if _is_density(model):
        plan["other"] = [("scores", "scores", ("score_samples",))]
    found: list[Answer] = []
    for name, role, methods in plan[task]:
        method = next((m for m in methods if hasattr(model, m)), None)
        if method is None:
            if not found and name:
                raise _no_method(model, methods[0])
            continue
        proper: tuple[str, Role] = (name, role) if name else _second(method)
        values = _dense(model, _call(model, method, rows))
        if proper[0] == "label" and values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]  # CatBoost's labels of three and more classes
        found.append(Answer(*proper, values, classes_of(model) if task == "classification" else None))
    return tuple(found)


def _is_density(model: Any) -> bool:
    return hasattr(model, "score_samples") and not hasattr(model, "predict")


def _second(method: str) -> tuple[str, Role]:
    return ("probabilities", "probabilities") if method == "predict_proba" else ("scores", "scores")


def _no_method(model: Any, method: str) -> UnsupportedModelError:
    name = type(last_step(model)).__name__
    return UnsupportedModelError(
        name,
        f"{name} has no {method}() for new rows, so there is nothing that a device could run",
        "train a classifier or regressor on its result, and pack that one",
    )


def _call(model: Any, method: str, rows: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(model, method)(rows)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise misfit(model, method, rows, error) from error


def _dense(model: Any, values: Any) -> Array:
    if isinstance(values, list):  # one array for each of several outputs
        shapes = {np.asarray(part).shape for part in values}
        if len(shapes) != 1:
            raise UnsupportedModelError(
                type(last_step(model)).__name__,
                f"its outputs have different numbers of classes: {sorted(shape[-1] for shape in shapes)}",
                "pack one model for each output",
            )
        return np.stack([np.asarray(part) for part in values])
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values)


def classes_of(model: Any) -> tuple[str, ...] | None:
    """Return the texts of a classifier's classes in its order, or none where it has no one list of them."""
    classes = getattr(model, "classes_", None)
    if classes is None or isinstance(classes, list) or np.asarray(classes).ndim != 1:
        return None
    texts = [int(value) if isinstance(value, bool) else value for value in np.asarray(classes).tolist()]
    return tuple(category_text(value) for value in texts)  # ONNX has no labels of type bool: they become 0 and 1


def framework_of(model: Any) -> str:
    """Return the framework's name."""
    if isinstance(model, TensorModel):
        return model.framework
    last = last_step(model)
    return boosting_framework(last) or type(last).__module__.split(".")[0].replace("sklearn", "scikit-learn")


def metrics_of(task: Task, truth: Array, found: Mapping[str, Array]) -> dict[str, float]:
    """Return the model's own figures on labelled rows: accuracy, or R² and the mean absolute error."""
    if task == "classification" and "label" in found and found["label"].ndim == 1:
        return {"accuracy": float(np.mean(found["label"].astype(str) == label_texts(truth, found["label"])))}
    if task == "regression" and "value" in found:
        value = found["value"].reshape(len(truth), -1).astype(np.float64)
        y = truth.reshape(len(truth), -1).astype(np.float64)
        spread = float(((y - y.mean(axis=0)) ** 2).sum())
        r2 = 1.0 - float(((y - value) ** 2).sum()) / spread if spread else 0.0
        return {"r2": r2, "mean_absolute_error": float(np.abs(y - value).mean())}
    return {}


def label_texts(truth: Array, like: Array) -> Array:
    """Return labels as texts, written as those of an output of labels: 3.0, True and 3 as ``3`` where that is int."""
    if like.dtype.kind in "iu" and truth.dtype.kind in "biuf":
        return truth.astype(np.int64).astype(str)
    return truth.astype(str)
