"""Models in the files of the boosting frameworks: XGBoost's .ubj and .json, LightGBM's .txt, CatBoost's .cbm.

They hold no code, so they are read in this process and need no trust. A file that scikit-learn's interface of XGBoost
wrote is read by that interface again: it then stops at the best iteration, as its ``predict`` does.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from shoal_converter.errors import LibraryMissingError, SourceError
from shoal_converter.sources.boosting.ensemble import BoostingUnsupportedError, unsupported
from shoal_converter.sources.boosting.models import as_estimator, ensemble_of

_FRAMEWORKS = {".ubj": "xgboost", ".json": "xgboost", ".txt": "lightgbm", ".cbm": "catboost"} | {
    ".xgb": "xgboost",  # as MLflow names them
    ".lgb": "lightgbm",
    ".cb": "catboost",
}
_INTERFACES = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}

SUFFIXES = tuple(_FRAMEWORKS)


def load(path: Path) -> Any:
    """Read a model.

    Raises:
        SourceError: There is no such file, or the framework can't read it.
        LibraryMissingError: The framework is not installed.
    """
    if not path.is_file():
        raise SourceError(f"there is no model file {path}", hint="model.save_model(…) writes one")
    framework = _FRAMEWORKS[path.suffix.lower()]
    try:
        library = importlib.import_module(framework)
    except ImportError as error:
        raise LibraryMissingError(
            f"{path.name} is a model of {framework}, which is not installed here",
            hint=f"pip install 'shoal-converter[{framework}]'",
        ) from error
    try:
        return as_estimator(
            {"xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost}[framework](library, path)
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SourceError(
            f"{framework} can't read {path.name}: {reason[:300]}",
            hint="is it a whole model as save_model() writes it, by this or an older version of the framework?",
        ) from error


def _xgboost(library: Any, path: Path) -> Any:
    booster = library.Booster(model_file=str(path))
    written = json.loads((booster.attributes() or {}).get("scikit_learn", "{}"))
    interface = _INTERFACES.get(str(written.get("_estimator_type", "")))
    if interface is None:
        return booster
    model = getattr(library, interface)()
    model.load_model(str(path))
    return model


def _lightgbm(library: Any, path: Path) -> Any:
    return library.Booster(model_file=str(path))


def _catboost(library: Any, path: Path) -> Any:
    model = library.CatBoost()
    model.load_model(str(path))
    return model


def typed_rows(model: Any, rows: Any) -> Any:
    """Give a data frame's columns of categories the type that the framework wants; a file of rows can't say it.

    Raises:
        UnsupportedModelError: The model has no exact form in ONNX.
    """
    if not hasattr(rows, "columns"):
        return rows
    from shoal_converter.sources.boosting.native import categorical_columns  # noqa: PLC0415 - imports scikit-learn

    try:
        categories = ensemble_of(model).categories
    except BoostingUnsupportedError as error:
        raise unsupported(type(model).__name__, error) from error
    names = list(rows.columns)
    return categorical_columns(rows, {names[at]: list(values) for at, values in categories.items() if at < len(names)})
