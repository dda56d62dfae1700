"""Cures for known faults of skl2onnx, as converters that stand in for its own.

Each cure is handed to one conversion; skl2onnx's registry is never changed, so other users of it in the same process
see no difference. A cure goes when the fault is gone upstream.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

Converter = Callable[[Any, Any, Any], None]


def cured_converters() -> dict[type, Converter]:
    """Return converters by the estimators that they are for."""
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415 - heavy
    from sklearn.ensemble import VotingClassifier  # noqa: PLC0415 - heavy
    from sklearn.impute import SimpleImputer  # noqa: PLC0415 - heavy

    def original(kind: type) -> Converter:
        found: Converter = get_converter(get_model_alias(kind))
        return found

    classifier, regressor = _histogram_types()
    cures: dict[type, Converter] = {
        classifier: _histogram(original(classifier), "TreeEnsembleClassifier"),
        regressor: _histogram(original(regressor), "TreeEnsembleRegressor"),
    }
    cures[VotingClassifier] = _without_flattening(original(VotingClassifier))
    cures[SimpleImputer] = _imputing_any_float(original(SimpleImputer))
    return cures


def cured_shapes() -> dict[type, Callable[[Any], None]]:
    """Return skl2onnx's own shape calculators for the same estimators: they are asked for beside own converters."""
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_shape_calculator  # noqa: PLC0415 - heavy

    return {kind: get_shape_calculator(get_model_alias(kind)) for kind in cured_converters()}


def _histogram_types() -> tuple[type, type]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor  # noqa: PLC0415 - heavy

    return (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


def _histogram(original: Callable[..., None], operation: str) -> Converter:
    """Histogram-based trees compare in float64: with double inputs their thresholds stay double (ai.onnx.ml 3)."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415 - heavy

        plain = _PlainAttributes(container)
        if isinstance(operator.inputs[0].type, DoubleTensorType):
            original(scope, operator, plain, operation, "ai.onnx.ml", 3)
        else:
            original(scope, operator, plain)

    return convert


def _without_flattening(original: Converter) -> Converter:
    """skl2onnx refuses voting with flatten_transform, which concerns transform() only and not what is predicted."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        operator.raw_operator = copy.copy(model)
        operator.raw_operator.flatten_transform = False
        try:
            original(scope, operator, container)
        finally:
            operator.raw_operator = model

    return convert


def _imputing_any_float(original: Converter) -> Converter:
    """onnxruntime imputes float32 and int64 only; for NaN in float64: y = x where x is a number, else the statistic."""  # noqa: D403

    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415 - heavy

        model, source = operator.raw_operator, operator.inputs
        plain = (
            len(source) == 1
            and isinstance(source[0].type, DoubleTensorType)
            and isinstance(model.missing_values, float)
            and np.isnan(model.missing_values)
            and not model.add_indicator
            and not np.isnan(np.asarray(model.statistics_, dtype=np.float64)).any()
        )
        if not plain:
            original(scope, operator, container)
            return
        statistics = np.asarray(model.statistics_, dtype=np.float64)
        constant = scope.get_unique_variable_name("statistics")
        container.add_initializer(constant, onnx.TensorProto.DOUBLE, [1, len(statistics)], statistics.tolist())
        missing = scope.get_unique_variable_name("missing")
        name, result = source[0].full_name, operator.outputs[0].full_name
        container.add_node("IsNaN", [name], [missing], name=scope.get_unique_operator_name("IsNaN"))
        container.add_node("Where", [missing, constant, name], [result], name=scope.get_unique_operator_name("Where"))

    return convert


class _PlainAttributes:
    """skl2onnx's container, except that attributes of numpy types become Python's own, and arrays of doubles tensors.

    protobuf 7 refuses the booleans and numpy scalars that skl2onnx 1.20 puts among the integers of histogram-based
    gradient boosting.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *arguments: Any, **attributes: Any) -> Any:
        plain = dict(_attribute(name, value) for name, value in attributes.items())
        return self._container.add_node(*arguments, **plain)


def _attribute(name: str, value: Any) -> tuple[str, Any]:
    """ai.onnx.ml 3 has a tensor beside each list of floats of a tree ensemble, which alone keeps doubles."""
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return f"{name}_as_tensor", onnx.numpy_helper.from_array(value)
    return name, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_, np.integer)):
        return int(value)
    if isinstance(value, np.floating):
        return value.item()
    return value
