"""From a fitted scikit-learn estimator to a raw ONNX graph, by skl2onnx with pinned versions and known cures.

Owns what is asked of skl2onnx: operator versions, options (tensors instead of dictionaries, raw scores where the source
gives scores, locale "C" for texts). `sklearn_cures` owns cures for its known faults. Nothing here judges the result:
parity does.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx

from shoal_converter.errors import UnsupportedModelError
from shoal_converter.sources.boosting.ensemble import BoostingUnsupportedError, unsupported
from shoal_converter.sources.boosting.models import is_boosting
from shoal_converter.sources.boosting.registration import registered
from shoal_converter.sources.columns import plain
from shoal_converter.sources.estimator import children, last_step, steps
from shoal_converter.sources.middle import with_middle_steps
from shoal_converter.sources.own_converters import has_own, own_converters, own_parsers, own_shapes
from shoal_converter.sources.sklearn_cures import cured_converters, cured_shapes

TARGET_OPSETS = {"": 18, "ai.onnx.ml": 3}

_TOKENS = {r"(?u)\b\w\w+\b": r"[\p{L}\p{N}_]{2,}", r"(?u)\b\w+\b": r"[\p{L}\p{N}_]+"}
"""The same words for onnxruntime's tokenizer, whose expressions (re2) know no \\w beyond ASCII."""

_COMPOSITES = ("Pipeline", "ColumnTransformer", "FeatureUnion")

_ITERATED = {
    "NMF": "transform() iterates over all rows together until they converge: a row's answer depends on the others",
    "MiniBatchNMF": "transform() iterates over all rows together: a row's answer depends on the others",
    "HashingVectorizer": "hashing of words in any language has no operator in ONNX",
}
"""Why some estimators will not have a form."""

_WAYS_ROUND = {
    "NMF": "use TruncatedSVD or PCA in its place, whose transform() is a product of matrices",
    "MiniBatchNMF": "use TruncatedSVD or PCA in its place, whose transform() is a product of matrices",
    "FunctionTransformer": "use a function of numpy itself (np.log1p, np.sqrt, …), or compute it before the model",
    "HashingVectorizer": "use CountVectorizer or TfidfVectorizer with max_features",
    **dict.fromkeys(
        ("CountVectorizer", "TfidfVectorizer"),
        "use an analyzer of scikit-learn's own with its token_pattern (or r'(?u)\\b\\w+\\b'), without tokenizer, "
        "preprocessor, or stop_words together with ngram_range: do what they do before training and predicting",
    ),
    "StackingClassifier": "put what prepares the columns before it, in one pipeline",
    "StackingRegressor": "put what prepares the columns before it, in one pipeline",
    "CalibratedClassifierCV": "calibrate a linear model, a forest, or one of a boosting framework; or pack it as it is",
    "TransformedTargetRegressor": "train on the transformed target and apply the inverse where the value is used",
}
_WAY_ROUND = "replace this step by one that converts (docs/reference/estimators.md lists them), or leave it out"


def export(
    model: Any, initial_types: Sequence[tuple[str, str, int]], options: Mapping[int, Mapping[str, Any]] | None = None
) -> onnx.ModelProto:
    """Convert a fitted estimator.

    Args:
        model: Estimator or pipeline.
        initial_types: Name, dtype (``float32``, ``float64``, ``int64``, ``string``) and width (0: not known) of each
            input.
        options: skl2onnx's, ``{id(estimator): {...}}``; they go before ours.

    Returns:
        The graph as exported, its outputs in skl2onnx's order: label first.

    Raises:
        UnsupportedModelError: A step has no converter, or its converter fails.
    """
    from skl2onnx import convert_sklearn  # noqa: PLC0415 - heavy

    model = with_middle_steps(_unfolded(plain(model, [name for name, _, _ in initial_types])))
    refuse_unsupported(model)
    asked = _options(model, options or {})
    models = [step for _, step in steps(model)]
    typed = [(name, _tensor_type(dtype)([None, width or None])) for name, dtype, width in initial_types]
    with _quiet(), registered([step for step in models if is_boosting(step)]):
        try:
            exported: onnx.ModelProto = convert_sklearn(
                model,
                initial_types=typed,
                target_opset=dict(TARGET_OPSETS),
                options=asked,
                custom_conversion_functions={**cured_converters(), **own_converters(models, export)},
                custom_shape_calculators={**cured_shapes(), **own_shapes(models)},
                custom_parsers=own_parsers(models),
            )
            return exported  # noqa: TRY300 - the type is stated once, where it comes from
        except BoostingUnsupportedError as error:
            path = next(path for path, step in steps(model) if is_boosting(step) or not children(step))
            raise unsupported(path, error) from error
        except Exception as error:
            raise _unsupported(model, error) from error


def _unfolded(model: Any) -> Any:
    """Return the model with a recursive elimination at its end as two steps: the selection, and what predicts on it."""
    from sklearn.pipeline import Pipeline  # noqa: PLC0415 - heavy

    if hasattr(model, "best_estimator_"):
        inner = _unfolded(model.best_estimator_)
        return model if inner is model.best_estimator_ else inner
    if hasattr(model, "steps"):
        name, last = model.steps[-1]
        inner = _unfolded(last)
        return model if inner is last else Pipeline([*model.steps[:-1], (name, inner)])
    if type(model).__name__ in {"RFE", "RFECV"} and hasattr(model, "predict"):
        return Pipeline([("support", model), ("estimator", model.estimator_)])
    return model


def refuse_unsupported(model: Any) -> None:
    """Refuse by name the first step that has no converter at all.

    Raises:
        UnsupportedModelError: With the step's path.
    """
    from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy

    for path, step in steps(model):
        name = type(step).__name__
        if name in _COMPOSITES or has_own(step) or is_boosting(step):
            continue
        try:
            get_model_alias(type(step))
        except RuntimeError:
            if not type(step).__module__.startswith("sklearn."):
                raise UnsupportedModelError(path, f"{name} {_OF_OTHERS}", _REGISTER) from None
            raise UnsupportedModelError(
                path, _ITERATED.get(name, f"{name} has no exact form in ONNX yet"), _WAYS_ROUND.get(name, _WAY_ROUND)
            ) from None


_OF_OTHERS = "is a class of neither scikit-learn nor a framework known here: a device can't run its Python"
_REGISTER = (
    "say it by scikit-learn's steps (ColumnTransformer, FunctionTransformer(np.log1p)), compute it before the model, "
    "or register a converter of your own for it: skl2onnx.update_registered_converter"
)


def _unsupported(model: Any, error: Exception) -> UnsupportedModelError:
    reason = (str(error).strip().splitlines() or [""])[0][:300]
    leaf = [(path, step) for path, step in steps(model) if not children(step)]
    everything = [*steps(model)][::-1] if "input(s)" in str(error) else leaf
    named = [(path, step) for path, step in everything if any(kind in str(error) for kind in _kinds(step))]
    path, step = (named or leaf or [(type(model).__name__, model)])[-1]
    name = type(step).__name__
    own = reason.startswith(f"{name}: ")  # our own converters say why in words for people
    why = reason if own else f"the converter of {name} fails: {type(error).__name__}: {reason}"
    return UnsupportedModelError(path, why, _WAYS_ROUND.get(name, _WAY_ROUND))


def _kinds(step: Any) -> list[str]:
    """Return the names of a step's class and of those that it is made from, for whose sake an error may name it."""
    return [
        kind.__name__
        for kind in type(step).__mro__
        if kind.__module__.startswith("sklearn.") and kind.__name__[0] != "_"
    ][:2]


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
        if has_own(step):
            options.setdefault(id(step), {})  # else skl2onnx hands it options of classifiers, which it may not have
        if not has_own(step) and "locale" in _allowed(step):
            options.setdefault(id(step), {})["locale"] = "C"
            if getattr(step, "token_pattern", None) in _TOKENS and step.analyzer == "word":
                options[id(step)]["tokenexp"] = _TOKENS[step.token_pattern]
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
