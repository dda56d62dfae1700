"""From a fitted scikit-learn estimator to a raw ONNX graph, by skl2onnx with pinned versions and known cures.

Owns what is asked of skl2onnx: operator versions, options (tensors instead of dictionaries, raw scores where the source
gives scores, locale "C" for texts), and cures for its known faults. It does not judge the result: parity does.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx

from shoal_converter.errors import UnsupportedModelError
from shoal_converter.sources.estimator import children, last_step, steps

TARGET_OPSETS = {"": 18, "ai.onnx.ml": 3}

_COMPOSITES = ("Pipeline", "ColumnTransformer", "FeatureUnion")

_WAYS_ROUND = {
    "FunctionTransformer": "compute it before the model on the device, or express it by scikit-learn's own transformers",
    "SplineTransformer": "use PolynomialFeatures or KBinsDiscretizer instead",
    "HashingVectorizer": "use CountVectorizer or TfidfVectorizer with max_features",
    "RBFSampler": "use an SVC or SVR with an rbf kernel on a subset, or PolynomialFeatures",
    "Nystroem": "use an SVC or SVR with the same kernel",
    "TransformedTargetRegressor": "train on the transformed target and apply the inverse where the value is used",
    "IsotonicRegression": "use a DecisionTreeRegressor, or HistGradientBoostingRegressor with monotonic_cst",
    "KernelRidge": "use SVR or GaussianProcessRegressor with the same kernel",
    "DummyClassifier": "a constant answer needs no model",
    "DummyRegressor": "a constant answer needs no model",
}
_WAY_ROUND = "replace this step by one that converts (docs/reference/shoal-convert.md lists them), or leave it out"


def export(
    model: Any, initial_types: Sequence[tuple[str, str, int]], options: Mapping[int, Mapping[str, Any]] | None = None
) -> onnx.ModelProto:
    """Convert a fitted estimator.

    Args:
        model: Estimator or pipeline.
        initial_types: Name, dtype (``float32``, ``float64``, ``int64``, ``string``) and width of each input.
        options: skl2onnx's, ``{id(estimator): {...}}``; they go before ours.

    Returns:
        The graph as exported, its outputs in skl2onnx's order: label first.

    Raises:
        UnsupportedModelError: A step has no converter, or its converter fails.
    """
    from skl2onnx import convert_sklearn  # noqa: PLC0415 - heavy

    refuse_unsupported(model)
    asked = _options(model, options or {})
    typed = [(name, _tensor_type(dtype)([None, width])) for name, dtype, width in initial_types]
    with _quiet():
        try:
            return convert_sklearn(
                model,
                initial_types=typed,
                target_opset=dict(TARGET_OPSETS),
                options=asked,
                custom_conversion_functions=_cured_converters(),
                custom_shape_calculators=_cured_shapes(),
            )
        except Exception as error:  # noqa: BLE001 - skl2onnx raises anything, ONNX and protobuf too
            raise _unsupported(model, error) from error


def refuse_unsupported(model: Any) -> None:
    """Refuse by name the first step that has no converter at all.

    Raises:
        UnsupportedModelError: With the step's path.
    """
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy

    for path, step in steps(model):
        name = type(step).__name__
        if name in _COMPOSITES or (children(step) and hasattr(step, "best_estimator_")):
            continue
        try:
            get_model_alias(type(step))
        except RuntimeError:
            raise UnsupportedModelError(
                path, f"{name} has no exact form in ONNX yet", _WAYS_ROUND.get(name, _WAY_ROUND)
            ) from None


def _unsupported(model: Any, error: Exception) -> UnsupportedModelError:
    reason = (str(error).strip().splitlines() or [""])[0][:300]
    leaf = [(path, step) for path, step in steps(model) if not children(step)]
    named = [(path, step) for path, step in leaf if type(step).__name__ in str(error)]
    path, step = (named or leaf or [(type(model).__name__, model)])[-1]
    name = type(step).__name__
    return UnsupportedModelError(
        path, f"the converter of {name} fails: {type(error).__name__}: {reason}", _WAYS_ROUND.get(name, _WAY_ROUND)
    )


def _tensor_type(dtype: str) -> Any:
    from skl2onnx.common import data_types  # noqa: PLC0415 - heavy

    return {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "string": data_types.StringTensorType,
    }[dtype]


def _allowed(step: Any) -> frozenset[str]:
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415 - heavy

    try:
        return frozenset(get_converter(get_model_alias(type(step))).get_allowed_options() or ())
    except (RuntimeError, ValueError, AttributeError):
        return frozenset()


def _options(model: Any, given: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    options: dict[int, dict[str, Any]] = {}
    last = last_step(model)
    allowed = _allowed(last)
    if "zipmap" in allowed:
        options.setdefault(id(last), {})["zipmap"] = False
    if "raw_scores" in allowed and not hasattr(last, "predict_proba"):
        options.setdefault(id(last), {})["raw_scores"] = True
    for _, step in steps(model):
        if "locale" in _allowed(step):
            options.setdefault(id(step), {})["locale"] = "C"
    for key, values in given.items():
        options.setdefault(key, {}).update(values)
    return options


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("skl2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _PlainAttributes:
    """skl2onnx's container, except that attributes of numpy types become Python's own.

    protobuf 7 refuses the booleans and numpy scalars that skl2onnx 1.20 puts among the integers of histogram-based
    gradient boosting.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *arguments: Any, **attributes: Any) -> Any:
        plain = {name: _plain(value) for name, value in attributes.items()}
        return self._container.add_node(*arguments, **plain)


def _plain(value: Any) -> Any:
    import numpy as np  # noqa: PLC0415 - beside skl2onnx

    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_, np.integer)):
        return int(value)
    if isinstance(value, np.floating) and not isinstance(value, float):
        return float(value)
    return value


def _histogram_types() -> tuple[type, ...]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor  # noqa: PLC0415

    return (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


def _cured_converters() -> dict[type, Callable[[Any, Any, Any], None]]:
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415 - heavy

    def cured(original: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
        return lambda scope, operator, container: original(scope, operator, _PlainAttributes(container))

    return {kind: cured(get_converter(get_model_alias(kind))) for kind in _histogram_types()}


def _cured_shapes() -> dict[type, Callable[[Any], None]]:
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
    from skl2onnx.common._registration import get_shape_calculator  # noqa: PLC0415 - heavy

    return {kind: get_shape_calculator(get_model_alias(kind)) for kind in _histogram_types()}
