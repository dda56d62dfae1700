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

from shoal_converter.sources.closed_forms import simple_imputer, text_imputer
from shoal_converter.sources.formula import Formula

Converter = Callable[[Any, Any, Any], None]

_INNER_OF_ONE_VS_ONE = "SklearnOVRDecisionFunction"
"""What skl2onnx's OneVsOne calls its second half; that has the same estimator, and so comes to the same cure."""


def cured_converters() -> dict[type, Converter]:
    """Return converters by the estimators that they are for."""
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415 - heavy
    from sklearn.ensemble import VotingClassifier, VotingRegressor  # noqa: PLC0415 - heavy
    from sklearn.impute import SimpleImputer  # noqa: PLC0415 - heavy
    from sklearn.multiclass import OneVsOneClassifier  # noqa: PLC0415 - heavy

    def original(kind: type) -> Converter:
        found: Converter = get_converter(get_model_alias(kind))
        return found

    cures: dict[type, Converter] = {kind: _rounded_once(original(kind)) for kind in _tree_types()}
    cures[VotingClassifier] = _without_flattening(original(VotingClassifier))
    cures[VotingRegressor] = _without_flattening(original(VotingRegressor))
    cures[OneVsOneClassifier] = _with_texts(original(OneVsOneClassifier))
    cures[SimpleImputer] = _imputing_any_float(original(SimpleImputer))
    return cures


def cured_shapes() -> dict[type, Callable[[Any], None]]:
    """Return skl2onnx's own shape calculators for the same estimators: they are asked for beside own converters."""
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_shape_calculator  # noqa: PLC0415 - heavy

    def calculator(kind: type) -> Callable[[Any], None]:
        def calculate(operator: Any) -> None:
            inner = operator.type == _INNER_OF_ONE_VS_ONE
            get_shape_calculator(_INNER_OF_ONE_VS_ONE if inner else get_model_alias(kind))(operator)
            if type(operator.raw_operator).__name__ == "SimpleImputer" and operator.raw_operator.add_indicator:
                operator.outputs[0].type.shape = [operator.outputs[0].type.shape[0], None]

        return calculate

    return {kind: calculator(kind) for kind in cured_converters()}


def _tree_types() -> tuple[type, ...]:
    from sklearn import ensemble, tree  # noqa: PLC0415 - heavy

    return (
        *(tree.DecisionTreeClassifier, tree.DecisionTreeRegressor, tree.ExtraTreeClassifier, tree.ExtraTreeRegressor),
        *(ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
        *(ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor),
        *(ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor),
    )


def _rounded_once(original: Converter) -> Converter:
    """scikit-learn's trees round double rows to float32 before they compare: so do ours, whatever comes before."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common import data_types  # noqa: PLC0415 - heavy
        from skl2onnx.common._apply_operation import apply_cast  # noqa: PLC0415 - heavy

        (given,) = operator.inputs
        if not isinstance(given.type, data_types.DoubleTensorType):
            original(scope, operator, container)
            return
        single = data_types.FloatTensorType
        rounded = scope.declare_local_variable("rounded", single(list(given.type.shape)))
        apply_cast(scope, given.onnx_name, rounded.onnx_name, container, to=onnx.TensorProto.FLOAT)
        inner = scope.declare_local_operator(operator.type, operator.raw_operator)
        inner.inputs.append(rounded)
        for output in operator.outputs:
            number = isinstance(output.type, (data_types.DoubleTensorType, single))
            inner.outputs.append(scope.declare_local_variable("tree", single() if number else output.type.__class__()))
        formula = Formula(scope, operator, container, read_inputs=False)
        formula.give(*(output.onnx_name for output in inner.outputs))

    return convert


def _without_flattening(original: Converter) -> Converter:
    """skl2onnx refuses voting with flatten_transform, which concerns transform() only, and weights in a list."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        operator.raw_operator = copy.copy(model)
        operator.raw_operator.flatten_transform = False
        if model.weights is not None:  # of a list it asks for what only arrays have
            operator.raw_operator.weights = np.asarray(model.weights)
        try:
            original(scope, operator, container)
        finally:
            operator.raw_operator = model

    return convert


def _imputing_any_float(original: Converter) -> Converter:
    """onnxruntime imputes float32 and int64 only, and skl2onnx forgets the indicator: our own formula for numbers."""  # noqa: D403

    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType  # noqa: PLC0415 - heavy

        source = operator.inputs
        if (
            len(source) == 1
            and isinstance(source[0].type, StringTensorType)
            and not operator.raw_operator.add_indicator
        ):
            formula = Formula(scope, operator, container)
            formula.give(text_imputer(formula, operator.raw_operator))
            return
        if len(source) != 1 or not isinstance(source[0].type, (DoubleTensorType, FloatTensorType)):
            original(scope, operator, container)
            return
        formula = Formula(scope, operator, container)
        formula.give(*simple_imputer(formula, operator.raw_operator))

    return convert


def _with_texts(original: Converter) -> Converter:
    """skl2onnx's OneVsOne gives places in place of texts: the classes become 0, 1, …, and are looked up after it."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.common._registration import get_converter  # noqa: PLC0415 - heavy
        from skl2onnx.common.data_types import Int64TensorType  # noqa: PLC0415 - heavy

        model = operator.raw_operator
        if operator.type == _INNER_OF_ONE_VS_ONE:
            get_converter(_INNER_OF_ONE_VS_ONE)(scope, operator, container)
            return
        classes = np.asarray(model.classes_)
        if np.array_equal(classes, np.arange(len(classes))):
            original(scope, operator, container)
            return
        numbered = copy.copy(model)
        numbered.classes_ = np.arange(len(classes))
        inner = scope.declare_local_operator("SklearnOneVsOneClassifier", numbered)
        inner.inputs = operator.inputs
        label = scope.declare_local_variable("place", Int64TensorType())
        scores = scope.declare_local_variable("scores", operator.outputs[1].type.__class__())
        inner.outputs.append(label)
        inner.outputs.append(scores)
        formula = Formula(scope, operator, container, read_inputs=False)
        formula.give(formula.labels(classes, label.onnx_name), scores.onnx_name)

    return convert
