"""Estimators in files of skops: read without running code, as far as every type inside is known to be harmless.

Owns which types are trusted: those that skops itself trusts, those of scikit-learn, scipy, XGBoost, LightGBM and
CatBoost that skops leaves to its caller, and those that the caller names. A file that holds any other type is not
loaded, and the types are named. See https://skops.readthedocs.io/en/stable/persistence.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from shoal_converter.errors import LibraryMissingError, SourceError, UntrustedTypesError
from shoal_converter.sources.pickle_file import bringing

_KNOWN_GOOD = frozenset(
    {
        "catboost.core.CatBoost",
        "catboost.core.CatBoostClassifier",
        "catboost.core.CatBoostRanker",
        "catboost.core.CatBoostRegressor",
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRanker",
        "lightgbm.sklearn.LGBMRegressor",
        "numpy.dtype",
        "numpy.mean",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csc.csc_matrix",
        "scipy.sparse._csr.csr_matrix",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.cluster._bisect_k_means._BisectingTree",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        *(
            f"sklearn.gaussian_process.kernels.{name}"
            for name in (
                *("CompoundKernel", "ConstantKernel", "DotProduct", "ExpSineSquared", "Exponentiation", "Matern"),
                *("PairwiseKernel", "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel"),
            )
        ),
        *(
            f"sklearn.feature_selection._univariate_selection.{name}"
            for name in ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
        ),
        "sklearn.metrics._dist_metrics.EuclideanDistance",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRanker",
        "xgboost.sklearn.XGBRegressor",
    }
)
"""Classes whose construction and state setting run nothing that the file brings. Compiled ones (trees, neighbours,
boosters) trust their arrays, so that a forged file may crash the process that loads it: always a child process."""


def load_skops(path: Path, *, trusted: Sequence[str] = ()) -> Any:
    """Load an estimator.

    Args:
        path: The file.
        trusted: Full names of further types that may be built.

    Raises:
        LibraryMissingError: skops is not installed.
        SourceError: It is no such file, or a type in it can't be imported.
        UntrustedTypesError: It holds types that nobody trusts; names them.
    """
    try:
        import skops.io as skops  # noqa: PLC0415 - optional
    except ImportError as error:
        raise LibraryMissingError(
            f"{path.name} is a file of skops, which is not installed here", hint="pip install 'shoal-converter[skops]'"
        ) from error
    try:
        found = skops.get_untrusted_types(file=path)
        unknown = sorted(set(found) - _KNOWN_GOOD - set(trusted))
        if unknown:
            raise UntrustedTypesError(path.name, unknown)
        return skops.load(path, trusted=found)
    except (BadZipFile, KeyError, OSError) as error:
        raise SourceError(
            f"{path.name} is no file of skops: {error}",
            hint="skops.io.dump(model, path) writes one; copied completely?",
        ) from error
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{path.name} needs the module {error.name!r}, which is not installed here", hint=bringing(error.name)
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path.name} can't be loaded: {type(error).__name__}: {error}",
            hint="was it written by the same versions of scikit-learn and skops?",
        ) from error
