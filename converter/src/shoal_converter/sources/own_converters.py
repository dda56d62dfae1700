"""Which estimators are converted by our own forms, and how skl2onnx is told of them for one conversion.

Owns parsers (what an estimator's outputs are), shape calculators and converters for `closed_forms`, and for estimators
around another one, whose inner estimator is parsed first. skl2onnx's own registry is never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal_converter.sources import closed_forms as forms
from shoal_converter.sources import (
    compositions,
    encoders,
    gaussian_processes,
    linear,
    neighbours,
    scalers,
    sketches,
    trees,
)
from shoal_converter.sources.calibration import calibrated, can_be_calibrated
from shoal_converter.sources.decisions import can_be_stacked, decision_form
from shoal_converter.sources.formula import Formula
from shoal_converter.sources.functions import apply, inverse
from shoal_converter.sources.gradient_boosting import boosted_classifier, boosted_regressor, needs_own_form
from shoal_converter.sources.histograms import histogram_classifier, histogram_regressor
from shoal_converter.sources.imputation import knn_imputer
from shoal_converter.sources.inlining import Export, Inner
from shoal_converter.sources.leaves import isolation_forest, random_trees_embedding
from shoal_converter.sources.middle import MiddleStep, middle_step
from shoal_converter.sources.perceptrons import is_multilabel, multilabel_perceptron
from shoal_converter.sources.sparse_codes import sparse_code
from shoal_converter.sources.splines import spline_transformer
from shoal_converter.sources.stacking import stacked_classifier, stacked_regressor
from shoal_converter.sources.support_vectors import has_no_probabilities, support_vector_classifier
from shoal_converter.sources.topics import latent_dirichlet_allocation
from shoal_converter.sources.vectorisers import count_vectorizer, has_known_terms, tfidf_vectorizer

Form = Callable[[Formula, Any], tuple[str, ...]]
Composition = Callable[[Formula, Inner, Any], tuple[str, ...]]


@dataclass(frozen=True)
class Own:
    """An estimator's own conversion.

    Attributes:
        form: Its formula; the inputs are those of the estimator, or the outputs of the inner one.
        outputs: What it gives: ``label``, ``cluster`` (a label of int64) and ``numbers``.
        inner: Attribute with the estimator inside, which is converted before.
        suits: Whether a fitted estimator is one for this form; else skl2onnx's converter is asked.
        apart: Whether columns of several inputs stay apart; else they are joined first.
        composed: A formula around other estimators, in place of `form`.
    """

    form: Form | None = None
    outputs: tuple[str, ...] = ("numbers",)
    inner: str | None = None
    suits: Callable[[Any], bool] = lambda _: True
    apart: bool = False
    composed: Composition | None = None


PASSED_THROUGH = {
    "FrozenEstimator": "estimator",
    "SelfTrainingClassifier": "estimator_",
    "RandomizedSearchCV": "best_estimator_",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
}
"""Estimators that answer as one inside them does, and its attribute."""

_PREFIX = "ShoalOwn"
_CLASSIFIER = ("label", "numbers")
_AFFINE = (
    *("FactorAnalysis", "FastICA", "PLSSVD", "SparsePCA", "MiniBatchSparsePCA", "FeatureAgglomeration"),
    *("NeighborhoodComponentsAnalysis", "SparseRandomProjection"),
)


_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier")
_TREES = ("DecisionTreeClassifier", "ExtraTreeClassifier")


def _one_output(model: Any) -> bool:
    return not model.outputs_2d_


_OWN: dict[str, Own] = {
    **{name: Own(forms.by_affine("transform")) for name in _AFFINE},
    "CCA": Own(forms.by_affine("predict")),
    "PLSCanonical": Own(forms.by_affine("predict")),
    "BernoulliRBM": Own(forms.bernoulli_rbm),
    "RBFSampler": Own(forms.rbf_sampler),
    "SkewedChi2Sampler": Own(forms.skewed_chi2_sampler),
    "AdditiveChi2Sampler": Own(forms.additive_chi2_sampler),
    "Nystroem": Own(forms.nystroem),
    "KernelRidge": Own(forms.kernel_ridge),
    "KernelCenterer": Own(forms.kernel_centerer),
    "LabelPropagation": Own(forms.label_propagation, _CLASSIFIER),
    "LabelSpreading": Own(forms.label_propagation, _CLASSIFIER),
    "LinearDiscriminantAnalysis": Own(forms.linear_discriminant, _CLASSIFIER),
    "NearestCentroid": Own(forms.nearest_centroid, _CLASSIFIER),
    "DummyClassifier": Own(forms.dummy_classifier, _CLASSIFIER),
    "DummyRegressor": Own(forms.dummy_regressor),
    "MeanShift": Own(forms.nearest_centre, ("cluster",)),
    "AffinityPropagation": Own(forms.nearest_centre, ("cluster",)),
    "Birch": Own(forms.birch, ("cluster", "numbers")),
    "BisectingKMeans": Own(forms.bisecting_kmeans, ("cluster", "numbers")),
    "EllipticEnvelope": Own(forms.elliptic_envelope, ("cluster", "numbers")),
    "IsotonicRegression": Own(forms.isotonic),
    "MissingIndicator": Own(forms.missing_indicator),
    "SequentialFeatureSelector": Own(forms.selection),
    "SelectFromModel": Own(forms.selection),
    "RFE": Own(forms.selection),
    "RFECV": Own(forms.selection),
    **{
        name: Own(linear.linear_classifier, _CLASSIFIER, suits=linear.is_linear_classifier)
        for name in linear.CLASSIFIERS
    },
    **{name: Own(support_vector_classifier, _CLASSIFIER, suits=has_no_probabilities) for name in ("SVC", "NuSVC")},
    **{name: Own(linear.linear_regressor) for name in linear.REGRESSORS},
    "StandardScaler": Own(scalers.standard_scaler),
    "RobustScaler": Own(scalers.robust_scaler),
    "MaxAbsScaler": Own(scalers.max_abs_scaler),
    "MinMaxScaler": Own(scalers.min_max_scaler),
    "KBinsDiscretizer": Own(scalers.bins),
    "PolynomialFeatures": Own(forms.polynomial_features),
    "Normalizer": Own(scalers.normalizer),
    "Binarizer": Own(scalers.binarizer),
    "KNeighborsClassifier": Own(neighbours.kneighbors_classifier, _CLASSIFIER, suits=_one_output),
    "KNeighborsRegressor": Own(neighbours.kneighbors_regressor),
    "RadiusNeighborsClassifier": Own(neighbours.radius_classifier, _CLASSIFIER, suits=_one_output),
    "RadiusNeighborsRegressor": Own(neighbours.radius_regressor),
    "KNeighborsTransformer": Own(neighbours.kneighbors_transformer),
    "RadiusNeighborsTransformer": Own(neighbours.radius_transformer),
    "LocalOutlierFactor": Own(neighbours.local_outlier_factor, ("cluster", "numbers")),
    "Isomap": Own(neighbours.isomap),
    "LocallyLinearEmbedding": Own(neighbours.locally_linear_embedding),
    "KNNImputer": Own(knn_imputer),
    "GaussianProcessRegressor": Own(gaussian_processes.gaussian_process_regressor),
    "GaussianProcessClassifier": Own(gaussian_processes.gaussian_process_classifier, _CLASSIFIER),
    **{name: Own(sparse_code) for name in ("SparseCoder", "DictionaryLearning", "MiniBatchDictionaryLearning")},
    **{name: Own(trees.forest_classifier, _CLASSIFIER, suits=trees.is_even) for name in _FORESTS},
    **{name: Own(trees.tree_classifier, _CLASSIFIER, suits=trees.is_even) for name in _TREES},
    **{name.replace("Classifier", "Regressor"): Own(trees.forest_regressor) for name in _FORESTS},
    **{name.replace("Classifier", "Regressor"): Own(trees.tree_regressor) for name in _TREES},
    "IsolationForest": Own(isolation_forest, ("cluster", "numbers")),
    "HistGradientBoostingClassifier": Own(histogram_classifier, _CLASSIFIER, apart=True),
    "HistGradientBoostingRegressor": Own(histogram_regressor, apart=True),
    "GradientBoostingClassifier": Own(composed=boosted_classifier, outputs=_CLASSIFIER, suits=needs_own_form),
    "GradientBoostingRegressor": Own(composed=boosted_regressor, suits=needs_own_form),
    "RandomTreesEmbedding": Own(random_trees_embedding),
    "PolynomialCountSketch": Own(sketches.polynomial_count_sketch),
    "LatentDirichletAllocation": Own(latent_dirichlet_allocation),
    "KernelDensity": Own(sketches.kernel_density),
    "CountVectorizer": Own(count_vectorizer, suits=has_known_terms),
    "TfidfVectorizer": Own(tfidf_vectorizer, suits=has_known_terms),
    "TargetEncoder": Own(encoders.target_encoder, apart=True),
    "OneHotEncoder": Own(encoders.one_hot_encoder, apart=True),
    "OrdinalEncoder": Own(encoders.ordinal_encoder, apart=True),
    "QuantileTransformer": Own(scalers.quantile_transformer),
    "RegressorChain": Own(composed=compositions.regressor_chain),
    "ClassifierChain": Own(composed=compositions.classifier_chain, outputs=("labels", "numbers")),
    "OutputCodeClassifier": Own(composed=compositions.output_code, outputs=("label",)),
    "BaggingClassifier": Own(
        composed=compositions.bagged_classifier, outputs=_CLASSIFIER, suits=compositions.votes_without_probabilities
    ),
    "OneVsRestClassifier": Own(
        composed=compositions.one_vs_rest, outputs=_CLASSIFIER, suits=lambda model: not model.multilabel_
    ),
    "CalibratedClassifierCV": Own(composed=calibrated, outputs=_CLASSIFIER, suits=can_be_calibrated, apart=True),
    "StackingClassifier": Own(composed=stacked_classifier, outputs=_CLASSIFIER, suits=can_be_stacked, apart=True),
    "StackingRegressor": Own(composed=stacked_regressor, suits=can_be_stacked, apart=True),
    "MLPClassifier": Own(multilabel_perceptron, ("labels", "numbers"), suits=is_multilabel),
    "IterativeImputer": Own(composed=compositions.iterative_imputer),
    "SplineTransformer": Own(spline_transformer),
    "FunctionTransformer": Own(lambda f, model: (apply(f, model.func, f.x, model.kw_args),)),
    "TransformedTargetRegressor": Own(lambda f, model: (inverse(f, model.transformer_, f.x),), inner="regressor_"),
    "FixedThresholdClassifier": Own(
        lambda f, model: forms.thresholded(f, model, model.threshold), _CLASSIFIER, inner="estimator_"
    ),
    "TunedThresholdClassifierCV": Own(
        lambda f, model: forms.thresholded(f, model, model.best_threshold_), _CLASSIFIER, inner="estimator_"
    ),
}


_MIDDLE_STEP = Own(middle_step)


def own_form(model: Any) -> Own | None:
    """Return an estimator's own conversion; scikit-learn's classes only, not their subclasses of the same name."""
    if isinstance(model, MiddleStep):
        return _MIDDLE_STEP
    if not type(model).__module__.startswith("sklearn."):
        return None
    own = _OWN.get(type(model).__name__)
    return own if own is not None and own.suits(model) else None


def has_own(model: Any) -> bool:
    """Tell whether an estimator is converted here and not by skl2onnx."""
    return own_form(model) is not None or type(model).__name__ in PASSED_THROUGH


def own_parsers(models: list[Any]) -> dict[type, Callable[..., Any]]:
    """Return parsers for those of some estimators that are converted here."""
    found: dict[type, Callable[..., Any]] = {}
    for model in models:
        if type(model).__name__ in PASSED_THROUGH:
            found[type(model)] = _passed_through
        elif own_form(model) is not None:
            found[type(model)] = _parsed
    return found


def own_converters(models: list[Any], export: Export) -> dict[type, Callable[..., None]]:
    """Return converters for those of some estimators that are converted here.

    Args:
        models: Every estimator of one conversion.
        export: Converts an estimator inside a formula.
    """

    def convert(scope: Any, operator: Any, container: Any) -> None:
        _convert(scope, operator, container, export)

    return {type(model): convert for model in models if own_form(model) is not None}


def own_shapes(models: list[Any]) -> dict[type, Callable[[Any], None]]:
    """Return shape calculators for the same estimators: their parsers have said all."""
    return {type(model): _shaped for model in models if own_form(model) is not None}


def _shaped(operator: Any) -> None:
    if not operator.type.startswith(_PREFIX):  # inside an estimator that skl2onnx converts
        from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
        from skl2onnx.common._registration import get_shape_calculator  # noqa: PLC0415 - heavy

        get_shape_calculator(get_model_alias(type(operator.raw_operator)))(operator)
        return
    rows = operator.inputs[0].get_first_dimension()
    for variable in operator.outputs:
        shape = list(variable.type.shape)
        if len(shape) in {1, 2}:
            variable.type.shape = [rows, *shape[1:]]


def _convert(scope: Any, operator: Any, container: Any, export: Export) -> None:
    model = operator.raw_operator
    own = own_form(model)
    inside = not operator.type.startswith(_PREFIX)  # of an estimator that skl2onnx converts, in its own way
    if own is None or (_asks_raw_scores(container, model) and (inside or hasattr(model, "predict_proba"))):
        from skl2onnx import get_model_alias  # noqa: PLC0415 - heavy
        from skl2onnx.common._registration import get_converter  # noqa: PLC0415 - heavy

        get_converter(get_model_alias(type(model)))(scope, operator, container)
        return
    formula = Formula(scope, operator, container)
    try:
        if own.composed is not None:
            results = own.composed(formula, Inner(formula, export, decision_form), model)
        else:
            results = own.form(formula, model) if own.form is not None else ()
    except RuntimeError as error:
        raise RuntimeError(f"{type(model).__name__}: {error}") from error
    formula.give(*results)


def _asks_raw_scores(container: Any, model: Any) -> bool:
    """Tell whether an estimator around this one wants scores in place of probabilities."""
    options = (container.options or {}).get(id(model), {})
    return bool(options.get("raw_scores", False))


def _passed_through(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx._parse import _parse_sklearn  # noqa: PLC0415 - heavy

    return _parse_sklearn(
        scope, getattr(model, PASSED_THROUGH[type(model).__name__]), inputs, custom_parsers=custom_parsers
    )


def _parsed(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx._parse import _parse_sklearn  # noqa: PLC0415 - heavy

    own = own_form(model)
    if own is None:  # another one of the same class needs its form, this one doesn't
        raise RuntimeError(f"{type(model).__name__} is there twice, with settings that are converted in different ways")
    if own.inner is not None:
        inputs = _parse_sklearn(scope, getattr(model, own.inner), inputs, custom_parsers=custom_parsers)
    operator = scope.declare_local_operator(_PREFIX + type(model).__name__, model)
    operator.inputs = inputs if own.inner is not None or own.apart else _single(scope, inputs)
    for name in own.outputs:
        operator.outputs.append(scope.declare_local_variable(name, _type(model, name, inputs)))
    return operator.outputs


def _single(scope: Any, inputs: Any) -> Any:
    """Several columns become one tensor, as skl2onnx does before its own converters."""
    if len(inputs) == 1:
        return inputs
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType  # noqa: PLC0415 - heavy

    double = any(isinstance(each.type, DoubleTensorType) for each in inputs)
    widths = [each.type.shape[1] if len(each.type.shape) > 1 else None for each in inputs]
    width = None if None in widths else sum(filter(None, widths))
    concat = scope.declare_local_operator("SklearnConcat")
    concat.inputs = inputs
    kind = DoubleTensorType if double else FloatTensorType
    merged = scope.declare_local_variable("merged_columns", kind([None, width]))
    concat.outputs.append(merged)
    return [merged]


def _type(model: Any, output: str, inputs: Any) -> Any:
    from skl2onnx.common import data_types  # noqa: PLC0415 - heavy

    if output == "cluster":
        return data_types.Int64TensorType([None])
    if output == "labels":
        several = len(model.estimators_) if hasattr(model, "estimators_") else int(model.n_outputs_)
        return data_types.Int64TensorType([None, several])
    outputs = int(getattr(model, "n_outputs_", 1))
    if output == "label" and outputs > 1:
        text = any(np.asarray(each).dtype.kind in "OUS" for each in model.classes_)
        return (data_types.StringTensorType if text else data_types.Int64TensorType)([None, outputs])
    if output == "label":
        text = np.asarray(model.classes_).dtype.kind in "OUS"
        return data_types.StringTensorType([None]) if text else data_types.Int64TensorType([None])
    kind = data_types.DoubleTensorType if _double(inputs) else data_types.FloatTensorType
    if outputs > 1 and hasattr(model, "predict_proba"):
        return kind([outputs, None, None])
    return kind([None, _width(model)])


def _double(inputs: Any) -> bool:
    from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415 - heavy

    return any(isinstance(each.type, DoubleTensorType) for each in inputs)


def _width(model: Any) -> int | None:
    """Return the number of columns of a transformer's rows, where a row of ones shows it."""
    if hasattr(model, "categories_"):
        return None  # rows of ones may be unseen categories
    if type(model).__name__.startswith("Stacking"):
        return None  # what it transforms to is not what it predicts
    if not hasattr(model, "transform") or not hasattr(model, "n_features_in_"):
        return None
    try:
        return int(model.transform(np.ones((1, model.n_features_in_))).shape[1])
    except (ValueError, TypeError, IndexError, AttributeError, RuntimeError):
        return None
