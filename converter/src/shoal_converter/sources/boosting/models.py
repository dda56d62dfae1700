"""Which models are gradient boosting, and the `Ensemble` of each.

Owns the dispatch by framework, the reading of the scikit-learn interfaces of XGBoost, LightGBM and CatBoost (classes,
best iteration, missing values), and adapters that give the frameworks' own boosters the same interface. A framework
is never imported for a model that is not its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.boosting import catboost_reader, lightgbm_reader, xgboost_reader
from shoal_converter.sources.boosting.ensemble import BoostingUnsupportedError, Ensemble

Array = npt.NDArray[Any]

FRAMEWORKS = ("xgboost", "lightgbm", "catboost")


def framework(model: Any) -> str | None:
    """Return the framework of a gradient boosting model, of a class of its own or one derived from it."""
    for kind in type(model).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in FRAMEWORKS and _is_model(kind):
            return root
    return framework(model.booster) if is_adapter(model) else None


def is_adapter(model: Any) -> bool:
    """Tell whether a model is one of `native`'s, which is looked for by name: importing it takes scikit-learn."""
    return type(model).__module__ == f"{__package__}.native"


def _is_model(kind: type) -> bool:
    return kind.__name__ in {"XGBModel", "LGBMModel", "CatBoost", "Booster"}


def is_boosting(model: Any) -> bool:
    """Tell whether a model is gradient boosting of XGBoost, LightGBM or CatBoost."""
    return framework(model) is not None


def compares_doubles(model: Any) -> bool:
    """Tell whether a model compares float64 with thresholds: LightGBM does, the others round to float32 before."""
    return framework(model) == "lightgbm"


def as_estimator(model: Any) -> Any:
    """Return a framework's own booster with the interface of scikit-learn; any other model as it is."""
    if type(model).__name__ not in {"Booster", "CatBoost"} or framework(model) is None:
        return model
    from shoal_converter.sources.boosting.native import adapted  # noqa: PLC0415 - imports scikit-learn

    return adapted(model)


def ensemble_of(model: Any) -> Ensemble:
    """Return what a fitted model computes.

    Raises:
        BoostingUnsupportedError: A part of it has no exact form here.
    """
    adapted = is_adapter(model)
    classes = _classes(model)
    root = framework(model)
    if root == "xgboost":
        if adapted:
            return xgboost_reader.read(model.booster, classes=classes)
        return xgboost_reader.read(
            model.get_booster(), rounds=_best_round(model), missing=_missing(model), classes=classes
        )
    if root == "lightgbm":
        _refuse_shortcuts(model)
        return lightgbm_reader.read(model.booster if adapted else model.booster_, classes=classes)
    return catboost_reader.read(model.booster if adapted else model, classes=classes)


def _classes(model: Any) -> Array | None:
    from sklearn.base import is_classifier  # noqa: PLC0415 - heavy

    if not is_classifier(model):
        return None
    return np.asarray(model.classes_)


def _best_round(model: Any) -> int | None:
    """Return how many rounds predict() uses after early stopping (XGBModel._get_iteration_range)."""
    if getattr(model, "booster", None) == "gblinear":
        return None
    try:
        return int(model.best_iteration) + 1
    except AttributeError:
        return None


def _missing(model: Any) -> float:
    missing = getattr(model, "missing", None)
    return float("nan") if missing is None else float(missing)


def _refuse_shortcuts(model: Any) -> None:
    parameters = model.get_params() if hasattr(model, "get_params") else {}
    if parameters.get("pred_early_stop") or parameters.get("pred_early_stop_freq"):
        raise BoostingUnsupportedError("pred_early_stop leaves trees out row by row; train without it")
