"""Boosters as the frameworks themselves keep them, with the interface of scikit-learn.

These are xgboost.Booster, lightgbm.Booster and catboost.CatBoost; the interface is what the converter asks of a model.

An objective of classes gives a classifier with the classes 0, 1, …; all others give values. Rows are answered by the
booster's own ``predict``, with all its rounds or up to its best as that does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from shoal_converter.sources.boosting import catboost_reader, lightgbm_reader, models, xgboost_reader

Array = npt.NDArray[Any]


class _Booster(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A trained booster.

    Attributes:
        booster: The framework's own object.
    """

    def __init__(self, booster: Any) -> None:
        self.booster = booster

    def fit(self, *_: Any) -> _Booster:
        """Return the booster itself: it is trained."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def n_features_in_(self) -> int:
        """Number of features."""
        root = models.framework(self)
        if root == "xgboost":
            return int(self.booster.num_features())
        return int(self.booster.num_feature()) if root == "lightgbm" else len(self.booster.feature_names_)

    @property
    def feature_names_in_(self) -> Array:
        """Names of the features; AttributeError where training gave none."""
        names = given_names(self.booster)
        if names is None:
            raise AttributeError("the booster was trained on features without names")
        return np.array(names, dtype=object)

    def _answers(self, rows: Any) -> Array:
        root = models.framework(self)
        if root == "xgboost":
            import xgboost  # noqa: PLC0415 - optional

            names = given_names(self.booster)
            typed = categorical_columns(rows, _xgboost_categories(self.booster))
            options = {"feature_names": names} if names is not None and not hasattr(rows, "columns") else {}
            return np.asarray(self.booster.predict(xgboost.DMatrix(typed, enable_categorical=True, **options)))
        return np.asarray(self.booster.predict(rows))


class BoosterRegressor(RegressorMixin, _Booster):  # type: ignore[misc]  # scikit-learn is not typed
    """A booster that gives values."""

    def predict(self, rows: Any) -> Array:
        """Return the booster's answers."""
        return self._answers(rows)


class BoosterRanker(_Booster):
    """A booster whose values order the rows of a group; it is no regressor, since labels are no such values."""

    def predict(self, rows: Any) -> Array:
        """Return the booster's answers."""
        return self._answers(rows)


class BoosterClassifier(ClassifierMixin, _Booster):  # type: ignore[misc]  # scikit-learn is not typed
    """A booster whose objective is one of classes."""

    @property
    def classes_(self) -> Array:
        """The classes: 0, 1, …."""
        root = models.framework(self)
        if root == "catboost":
            return np.asarray(self.booster.classes_)
        if root == "lightgbm":
            count = int(self.booster.num_model_per_iteration())
        else:
            count = xgboost_reader.class_count(self.booster)
        return np.arange(max(count, 2))

    def predict_proba(self, rows: Any) -> Array:
        """Return probabilities, [N, classes]."""
        if models.framework(self) == "catboost":
            return np.asarray(self.booster.predict(rows, prediction_type="Probability"))
        found = self._answers(rows)
        if found.ndim == 2 and found.shape[1] > 1:
            return found
        share = found.reshape(-1, 1)
        return np.concatenate([1 - share, share], axis=1)

    def predict(self, rows: Any) -> Array:
        """Return labels, (N,)."""
        if models.framework(self) == "catboost":
            return np.asarray(self.booster.predict(rows, prediction_type="Class")).ravel()
        found = self.predict_proba(rows)
        index = np.argmax(found, axis=1) if found.shape[1] > 2 else (found[:, 1] > 0.5).astype(np.int64)
        return np.asarray(self.classes_[index])


def adapted(model: Any) -> Any:
    """Return a booster as an estimator; whatever has that interface already stays as it is."""
    root = models.framework(model)
    name = type(model).__name__
    if root is None or name not in {"Booster", "CatBoost"}:
        return model
    reader = {"xgboost": xgboost_reader, "lightgbm": lightgbm_reader, "catboost": catboost_reader}[root]
    if reader.is_classifier(model):
        return BoosterClassifier(model)
    return (BoosterRanker if reader.is_ranker(model) else BoosterRegressor)(model)


def given_names(booster: Any) -> list[str] | None:
    """Return the names of the features that training was given; none where it was given none."""
    root = models.framework(booster)
    if root == "xgboost":
        names = booster.feature_names
        return None if names is None else [str(name) for name in names]
    names = [str(name) for name in (booster.feature_name() if root == "lightgbm" else booster.feature_names_)]
    made = [f"Column_{at}" for at in range(len(names))], [str(at) for at in range(len(names))]
    return None if names in made else names


def categorical_columns(rows: Any, categories: dict[str, list[Any]]) -> Any:
    """Return a data frame with the columns of categories in that type, as a file of rows can't say it."""
    if not hasattr(rows, "columns") or not categories:
        return rows
    import pandas as pd  # noqa: PLC0415 - the rows are its own

    plain = {
        name: pd.Categorical(rows[name].where(rows[name].isin(values)), categories=values)
        for name, values in categories.items()
        if name in rows.columns and not isinstance(rows[name].dtype, pd.CategoricalDtype)
    }
    return rows.assign(**plain) if plain else rows


def _xgboost_categories(booster: Any) -> dict[str, list[Any]]:
    names = booster.feature_names or []
    known = xgboost_reader.categories_of(booster)
    return {names[at]: list(values) for at, values in known.items() if at < len(names)}
