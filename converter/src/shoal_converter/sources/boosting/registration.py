"""How skl2onnx is told of gradient boosting models, for the time of one conversion.

skl2onnx looks for a model inside another one (calibrated, stacked, voting, one for each output) in its registry only,
so the classes of the frameworks that are loaded are entered there and taken out again. Owns parser, shape calculator
and converter; `nodes` writes the graph.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from shoal_converter.sources.boosting import nodes
from shoal_converter.sources.boosting.ensemble import Ensemble
from shoal_converter.sources.boosting.models import ensemble_of
from shoal_converter.sources.formula import Formula, element_type

_CLASSES = {
    "xgboost": ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker"),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
    "catboost": ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"),
    "shoal_converter.sources.boosting.native": ("BoosterClassifier", "BoosterRegressor", "BoosterRanker"),
}
_OPTIONS = {
    "exactly": [True, False],
    "zipmap": [True, False, "columns"],
    "raw_scores": [True, False],
    "nocl": [True, False],
}


@contextlib.contextmanager
def registered(models: list[Any]) -> Iterator[None]:
    """Enter the classes of all loaded frameworks, and of some models, into skl2onnx's registry; take them out after."""
    from skl2onnx import _parse, _supported_operators  # noqa: PLC0415 - heavy
    from skl2onnx.common import _registration  # noqa: PLC0415 - heavy

    kinds = {kind: f"Shoal{kind.__module__.partition('.')[0]}{kind.__qualname__}" for kind in _kinds(models)}
    try:
        for kind, alias in kinds.items():
            _supported_operators.update_registered_converter(
                kind, alias, _shape, _convert, overwrite=True, parser=_parse_boosting, options=_OPTIONS
            )
        yield
    finally:
        for kind, alias in kinds.items():
            _supported_operators.sklearn_operator_name_map.pop(kind, None)
            _parse.sklearn_parsers_map.pop(kind, None)
            for pool in (_registration._converter_pool, _registration._shape_calculator_pool):  # noqa: SLF001
                pool.pop(alias, None)


def _kinds(models: list[Any]) -> set[type]:
    loaded = {
        getattr(sys.modules[module], name)
        for module, names in _CLASSES.items()
        if module in sys.modules
        for name in names
        if hasattr(sys.modules[module], name)
    }
    return loaded | {type(model) for model in models}


def _parse_boosting(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Take the inputs apart as they are: categories are texts, which can't be joined with numbers."""
    del custom_parsers
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType  # noqa: PLC0415 - heavy

    operator = scope.declare_local_operator(get_model_alias(type(model)), model)
    operator.inputs = inputs
    if _labelled(model):
        operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
        operator.outputs.append(scope.declare_local_variable("probabilities", FloatTensorType()))
    else:
        operator.outputs.append(scope.declare_local_variable("value", FloatTensorType()))
    _shape(operator)
    return operator.outputs


def _labelled(model: Any) -> bool:
    from sklearn.base import is_classifier  # noqa: PLC0415 - heavy

    return bool(is_classifier(model))


def _shape(operator: Any) -> None:
    from skl2onnx.common import data_types  # noqa: PLC0415 - heavy

    rows = operator.inputs[0].get_first_dimension() if operator.inputs[0].type.shape else None
    double = any(isinstance(each.type, data_types.DoubleTensorType) for each in operator.inputs)
    numbers = data_types.DoubleTensorType if double else data_types.FloatTensorType
    model = operator.raw_operator
    if not _labelled(model):
        operator.outputs[0].type = numbers([rows, None])
        return
    classes = np.asarray(model.classes_)
    text = classes.dtype.kind in "OUS" and not all(isinstance(each, (int, float, bool)) for each in classes.tolist())
    operator.outputs[0].type = (data_types.StringTensorType if text else data_types.Int64TensorType)([rows])
    operator.outputs[1].type = numbers([rows, len(classes)])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    ensemble: Ensemble = ensemble_of(operator.raw_operator)
    if _settings(container, operator.raw_operator).get("exactly"):
        ensemble = replace(ensemble, exactly=True)
    f = Formula(scope, operator, container, read_inputs=False)
    variables = [(each.full_name, element_type(each.type), _columns(each)) for each in operator.inputs]
    f.give(*nodes.write(f, _raw(ensemble) if _asks_scores(container, operator.raw_operator) else ensemble, variables))


def _asks_scores(container: Any, model: Any) -> bool:
    """Tell whether an estimator around this one takes its scores: scikit-learn does where there are any."""
    return bool(_settings(container, model).get("raw_scores", False)) and hasattr(model, "decision_function")


def _settings(container: Any, model: Any) -> dict[str, Any]:
    return dict((container.options or {}).get(id(model), {}))


def _raw(ensemble: Ensemble) -> Ensemble:
    """Return the same model with scores in place of probabilities; of two classes, skl2onnx reads the second column."""
    return replace(ensemble, raw=True)


def _columns(variable: Any) -> int | None:
    shape = variable.type.shape
    width = shape[1] if len(shape) > 1 else None
    return width if isinstance(width, int) and width > 0 else None
