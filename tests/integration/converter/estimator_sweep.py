"""Every estimator of scikit-learn, trained on small data, converted, and compared with its source on unseen rows.

Owns what is tried and the table that comes out of it (docs/reference/estimators.md). Each estimator is tried on the
settings that it is made for: two, three and text classes for classifiers, float64 and float32 training data, alone
and behind a scaler. Exact means: labels equal, numbers within rtol 1e-4 and atol 1e-5, on rows that the converter
never saw.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
from sklearn import datasets, linear_model, pipeline, preprocessing, svm, tree
from sklearn.base import is_classifier, is_regressor
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401 - they show them
from sklearn.utils import all_estimators

from shoal_converter import ConverterError, ParityError, UnsupportedModelError, to_onnx

RTOL, ATOL = 1e-4, 1e-5
SEEN = 100


@dataclass(frozen=True)
class Case:
    """One model to convert: rows in the form that it takes, the first `SEEN` of them for training and conversion."""

    name: str
    rows: Any
    target: Any = None
    scaled: bool = False


@dataclass
class Finding:
    """What became of one estimator.

    Attributes:
        exact: Cases whose ONNX model answers alike.
        refused: Reason and way round by case.
        wrong: What differs, by case; nothing may be here.
    """

    exact: list[str] = field(default_factory=list)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


OF_TARGETS = frozenset({"LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer"})
"""Made for labels and not for rows: no model's input."""

_ROWS, _SPECIES = datasets.load_iris(return_X_y=True)
_ORDER = np.random.default_rng(7).permutation(len(_ROWS))
ROWS, SPECIES = _ROWS[_ORDER], _SPECIES[_ORDER]
AMOUNT = 3 * ROWS[:, 0] - 0.5 * ROWS[:, 1] * ROWS[:, 2] + ROWS[:, 3] ** 2 + 0.1 * np.sin(37 * ROWS[:, 1])
AMOUNTS = np.c_[AMOUNT, ROWS[:, 0] + ROWS[:, 3]]
CLASSES = {
    "two classes": (SPECIES > 0).astype(int),
    "three classes": SPECIES,
    "text classes": np.array(["setosa", "versicolor", "virginica"])[SPECIES],
}
WORDS = np.array(["red", "green", "blue"])
COLOURS = pd.DataFrame(
    {"colour": WORDS[(SPECIES + ROWS[:, 1].astype(int)) % 3], "size": WORDS[::-1][SPECIES]}, dtype=object
)
LEVELS = np.clip(ROWS, 0, 3).astype(int)
TEXTS = np.array(
    [f"the {a} {b} fox number {int(10 * x)}" for a, b, x in zip(*COLOURS.to_numpy().T, ROWS[:, 0], strict=True)],
    dtype=object,
)

BINARY = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV"})
SEVERAL_LABELS = frozenset({"ClassifierChain", "MultiOutputClassifier"})
SEVERAL_VALUES = frozenset(
    {
        "MultiTaskElasticNet",
        "MultiTaskElasticNetCV",
        "MultiTaskLasso",
        "MultiTaskLassoCV",
        "MultiOutputRegressor",
        "RegressorChain",
        "CCA",
        "PLSCanonical",
        "PLSSVD",
    }
)
TIES = ("Neighbors", "LocalOutlierFactor", "Isomap", "LocallyLinear", "KNN")
"""Of rows that are equally far, which one is a neighbour is scikit-learn's chance: tried on rows without equals."""
TREES = ("Forest", "Trees", "Boost", "Bagging", "Embedding")


def made(name: str, kind: type) -> Any:
    """Return an unfitted estimator, small enough to be quick and of settings that converge."""
    leaf = linear_model.LogisticRegression()
    ridge = linear_model.Ridge()
    special: dict[str, Callable[[], Any]] = {
        "ClassifierChain": lambda: kind(leaf),
        "ColumnTransformer": lambda: kind(
            [("a", preprocessing.StandardScaler(), [0, 1]), ("b", "passthrough", [2, 3])]
        ),
        "FeatureUnion": lambda: kind([("a", preprocessing.StandardScaler()), ("b", preprocessing.MinMaxScaler())]),
        "FixedThresholdClassifier": lambda: kind(leaf, threshold=0.8),
        "GridSearchCV": lambda: kind(leaf, {"C": [0.1, 1.0]}, cv=3),
        "HalvingGridSearchCV": lambda: kind(leaf, {"C": [0.1, 1.0]}, cv=3),
        "HalvingRandomSearchCV": lambda: kind(leaf, {"C": [0.1, 1.0]}, cv=3),
        "RandomizedSearchCV": lambda: kind(leaf, {"C": [0.1, 1.0]}, n_iter=2, cv=3),
        "MultiOutputClassifier": lambda: kind(leaf),
        "MultiOutputRegressor": lambda: kind(ridge),
        "Pipeline": lambda: kind([("a", preprocessing.StandardScaler()), ("b", leaf)]),
        "RegressorChain": lambda: kind(ridge),
        "OneVsOneClassifier": lambda: kind(svm.LinearSVC(random_state=0)),
        "OneVsRestClassifier": lambda: kind(leaf),
        "OutputCodeClassifier": lambda: kind(leaf, random_state=0),
        "RFE": lambda: pipeline.make_pipeline(kind(leaf), leaf),
        "RFECV": lambda: pipeline.make_pipeline(kind(leaf), leaf),
        "SelectFromModel": lambda: kind(leaf),
        "SelfTrainingClassifier": lambda: kind(leaf),
        "SequentialFeatureSelector": lambda: kind(ridge),
        "SparseCoder": lambda: kind(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]),
        "StackingClassifier": lambda: kind(
            [("a", leaf), ("b", tree.DecisionTreeClassifier(max_depth=2, random_state=0))]
        ),
        "StackingRegressor": lambda: kind(
            [("a", ridge), ("b", tree.DecisionTreeRegressor(max_depth=2, random_state=0))]
        ),
        "VotingClassifier": lambda: kind(
            [("a", leaf), ("b", tree.DecisionTreeClassifier(max_depth=2, random_state=0))]
        ),
        "VotingRegressor": lambda: kind([("a", ridge), ("b", tree.DecisionTreeRegressor(max_depth=2, random_state=0))]),
        "TunedThresholdClassifierCV": lambda: kind(leaf),
        "CalibratedClassifierCV": lambda: kind(leaf, cv=3),
        "TransformedTargetRegressor": lambda: kind(ridge, func=np.log1p, inverse_func=np.expm1),
        "SimpleImputer": lambda: kind(add_indicator=True),
        "FunctionTransformer": lambda: kind(np.log1p),
        "LocalOutlierFactor": lambda: kind(novelty=True),
        "KBinsDiscretizer": lambda: kind(quantile_method="averaged_inverted_cdf"),
        "HashingVectorizer": lambda: kind(n_features=64),
        "FeatureHasher": lambda: kind(n_features=16),
        "SelectKBest": lambda: kind(k=2),
        "SelectFdr": kind,
        "VarianceThreshold": lambda: kind(0.3),
        "Binarizer": lambda: kind(threshold=2.0),
        "QuantileTransformer": lambda: kind(n_quantiles=50),
        "GaussianRandomProjection": lambda: kind(n_components=3, random_state=0),
        "SparseRandomProjection": lambda: kind(n_components=3, random_state=0),
        "BernoulliNB": lambda: kind(binarize=2.0),
        "NMF": lambda: kind(n_components=2, random_state=0, max_iter=2000),
        "GaussianProcessRegressor": lambda: kind(alpha=0.1),
        "RadiusNeighborsClassifier": lambda: kind(radius=3.0),
        "RadiusNeighborsRegressor": lambda: kind(radius=3.0),
        "RadiusNeighborsTransformer": lambda: kind(radius=1.0),
        "PLSSVD": lambda: kind(n_components=1),
        "CCA": lambda: kind(n_components=1),
        "PLSCanonical": lambda: kind(n_components=1),
        "FrozenEstimator": lambda: kind(leaf.fit(ROWS[:SEEN], SPECIES[:SEEN])),
        "Nystroem": lambda: kind(n_components=10, random_state=0),
        "RBFSampler": lambda: kind(n_components=10, random_state=0),
        "SkewedChi2Sampler": lambda: kind(n_components=10, random_state=0),
        "PolynomialCountSketch": lambda: kind(n_components=10, random_state=0),
    }
    if name in special:
        return special[name]()
    known = inspect.signature(kind).parameters
    small = {"random_state": 0, "n_clusters": 3}
    settings: dict[str, Any] = {key: value for key, value in small.items() if key in known}
    if "n_estimators" in known and any(word in name for word in (*TREES, "Isolation")):
        settings["n_estimators"] = 5
    if (
        name != "LinearDiscriminantAnalysis"
        and not name.startswith("Spectral")
        and "n_components" in known
        and known["n_components"].default in {None, 2} | set(range(100))
    ):
        settings["n_components"] = 2
    return kind(**settings)


def cases(name: str, model: Any) -> Iterator[Case]:
    """Yield what an estimator is tried on."""
    for case in _cases(name, model):
        if any(word in name for word in TIES):
            noise = np.random.default_rng(3).normal(0, 0.1, case.rows.shape)
            yield replace(case, rows=(case.rows + noise).astype(case.rows.dtype))
        else:
            yield case


def _cases(name: str, model: Any) -> Iterator[Case]:  # noqa: C901 - one branch a form of rows
    if name in {"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"}:
        yield Case("texts", TEXTS)
    elif name in {"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}:
        yield Case("texts in columns", COLOURS, AMOUNT)
        yield Case("whole numbers", LEVELS, AMOUNT)
        if name == "TargetEncoder":
            yield Case("texts, three classes", COLOURS, SPECIES)
    elif name in {"TfidfTransformer", "CategoricalNB"}:
        yield from (Case(kind, LEVELS, target) for kind, target in CLASSES.items())
    elif name in {"DictVectorizer", "FeatureHasher"}:
        yield Case("dictionaries", [{"a": float(a), "b": float(b)} for a, b, *_ in ROWS])
    elif name == "PatchExtractor":
        yield Case("images", ROWS.reshape(-1, 2, 2))
    elif name == "IsotonicRegression":
        yield Case("values", ROWS[:, 2:3], AMOUNT)
    elif name == "KernelCenterer":
        yield Case("a kernel", ROWS @ ROWS[:SEEN].T)
    elif name == "MissingIndicator" or "Imputer" in name:
        gaps = np.where(np.random.default_rng(1).random(ROWS.shape) < 0.15, np.nan, ROWS)
        yield Case("missing values", gaps)
    elif name in SEVERAL_LABELS:
        yield Case("several labels", ROWS, np.c_[SPECIES > 0, SPECIES > 1].astype(int))
    elif name in SEVERAL_VALUES:
        yield Case("several values", ROWS, AMOUNTS)
    elif is_classifier(model):
        yield from _classified(name)
    elif is_regressor(model):
        yield Case("values", ROWS, AMOUNT)
        yield Case("values, scaled", ROWS, AMOUNT, scaled=True)
        yield Case("values, float32", ROWS.astype(np.float32), AMOUNT)
    else:
        yield Case("rows", ROWS, SPECIES)
        yield Case("rows, float32", ROWS.astype(np.float32), SPECIES)


def _classified(name: str) -> Iterator[Case]:
    for kind, classes in CLASSES.items():
        target = classes
        if name in BINARY:
            if kind == "three classes":
                continue
            target = np.where(classes == "setosa", "no", "yes") if kind == "text classes" else classes
        if name == "SelfTrainingClassifier" and kind == "text classes":
            target = classes.astype(object)
        yield Case(kind, ROWS, target)
        if kind == "three classes" or name in BINARY:
            yield Case(f"{kind}, scaled", ROWS, target, scaled=True)
    yield Case("two classes, float32", ROWS.astype(np.float32), CLASSES["two classes"])


def sweep(names: frozenset[str] | None = None, *, report: Callable[[str], None] = lambda _: None) -> dict[str, Finding]:
    """Try every estimator (or those named) and return what became of each."""
    findings: dict[str, Finding] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = all_estimators()
    for name, kind in kinds:
        if name in OF_TARGETS or (names is not None and name not in names):
            continue
        started = time.monotonic()
        finding = findings[name] = Finding()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of estimators about themselves and about so little data
            for case in cases(name, made(name, kind)):
                _try(made(name, kind), case, finding)
        report(f"{name} {time.monotonic() - started:.1f} s: {finding}")
    return findings


def _try(model: Any, case: Case, finding: Finding) -> None:
    if case.scaled:
        model = pipeline.make_pipeline(preprocessing.MinMaxScaler(), model)
    seen, unseen = _split(case.rows)
    model.fit(seen, None if case.target is None else case.target[:SEEN])
    try:
        raw = to_onnx(model, seen)
    except ConverterError as error:
        finding.refused[case.name] = (_reason(error), error.hint)
        return
    fault = _difference(model, raw, unseen)
    if fault:
        finding.wrong[case.name] = fault
    else:
        finding.exact.append(case.name)


def _reason(error: ConverterError) -> str:
    """Say why in words that are the same on every machine: without counts and the runtime's own messages."""
    if isinstance(error, ParityError):
        return "parity: the converted model answers otherwise on some rows"
    if isinstance(error, UnsupportedModelError):
        return error.why.split(": onnxruntime")[0].split("; known are")[0]
    return error.message


def _split(rows: Any) -> tuple[Any, Any]:
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[:SEEN], rows.iloc[SEEN:]
    return rows[:SEEN], rows[SEEN:]


def _difference(model: Any, raw: bytes, rows: Any) -> str:
    session = ort.InferenceSession(raw)
    given = session.get_inputs()
    if isinstance(rows, pd.DataFrame):
        feed = {i.name: rows[[i.name]].to_numpy() for i in given}
    else:
        dtype = {
            "tensor(double)": np.float64,
            "tensor(float)": np.float32,
            "tensor(string)": object,
            "tensor(int64)": np.int64,
        }
        feed = {given[0].name: np.asarray(rows).reshape(len(rows), -1).astype(dtype[given[0].type])}
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    faults = []
    if "label" in found:
        labels = np.asarray(model.predict(rows))
        differ = found["label"].astype(str) != (labels.astype(int) if labels.dtype.kind == "f" else labels).astype(str)
        if differ.any():
            faults.append(f"label differs in {int(differ.sum())} of {len(rows)}")
    methods = {"probabilities": "predict_proba", "value": "predict", "transformed": "transform"}
    if not hasattr(model, "predict"):
        methods["scores"] = "score_samples"
    for output, values in found.items():
        if output == "label":
            continue
        method = methods.get(output) or ("decision_function" if hasattr(model, "decision_function") else "transform")
        truth = getattr(model, method)(rows)
        truth = truth.toarray() if hasattr(truth, "toarray") else np.asarray(truth)
        if truth.size != values.size:
            faults.append(f"{output} has shape {values.shape}, expected {truth.shape}")
        elif not np.allclose(values.reshape(truth.shape), truth, rtol=RTOL, atol=ATOL, equal_nan=True):
            faults.append(f"{output} is off by {np.abs(values.reshape(truth.shape) - truth).max():.3g}")
    return "; ".join(faults)


def page(findings: dict[str, Finding]) -> str:
    """Return the table of what became of every estimator, as Markdown."""
    exact = sum(1 for finding in findings.values() if not finding.refused and not finding.wrong)
    partly = sum(1 for finding in findings.values() if finding.exact and finding.refused)
    lines = [
        "# Estimators",
        "",
        "What becomes of each of scikit-learn's estimators in `shoal-convert`. **Exact**: labels equal and numbers",
        "within rtol 1e-4 and atol 1e-5 of the source's, on rows that the converter never saw. Refused: exit code 4 or",
        "3, never a wrong model. It was tried with small data and few settings; parity is checked again on the sample",
        "of every pack.",
        "",
        f"{exact} exact, {partly} exact in some cases, {len(findings) - exact - partly} refused, of {len(findings)}.",
        "",
        "Made by `tests/integration/converter/estimator_sweep.py`; a test repeats the sweep and says when it is stale.",
        "",
        "| estimator | what holds | why, and a way round |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {_verdict(finding)} | {_why(finding)} |" for name, finding in sorted(findings.items())]
    return "\n".join([*lines, ""])


def _verdict(finding: Finding) -> str:
    if finding.wrong:
        return f"WRONG: {', '.join(finding.wrong)}"
    if not finding.refused:
        return f"exact: {', '.join(finding.exact)}"
    if not finding.exact:
        return "refused"
    return f"exact: {', '.join(finding.exact)}; refused: {', '.join(finding.refused)}"


def _why(finding: Finding) -> str:
    reasons = dict.fromkeys(f"{why}: {way_round}" for why, way_round in finding.refused.values())
    return "; ".join(reasons).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(page(sweep()), end="")
