"""The models that benchmarks run: trained here on made-up rows, the same on every machine."""
# ruff: noqa: PLC0415  (the libraries that train are only loaded where something is trained)

from __future__ import annotations

import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fixtures_models import linear_schema, make_bundle
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.model import LoadedModel
from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream

FEATURES, CLASSES, ROWS = 20, 3, 4000
NAMES = ("linear", "gbdt", "forest", "mlp")


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Return float32 rows of 20 features, and classes."""
    from sklearn.datasets import make_classification

    x, y = make_classification(ROWS, FEATURES, n_informative=10, n_classes=CLASSES, random_state=0)
    return x.astype(np.float32), y


def sample(rows: int) -> np.ndarray:
    """Return rows of the data, contiguous."""
    return np.ascontiguousarray(data()[0][:rows])


def batches(rows: int) -> list[dict[str, np.ndarray]]:
    """Return many different feeds: of repeated rows the branch predictor would learn a tree's every turn."""
    rng = np.random.default_rng(0)
    x, _ = data()
    return [{"x": np.ascontiguousarray(x[rng.permutation(ROWS)[:rows]])} for _ in range(64)]


@cache
def trained(name: str) -> bytes:
    """Train a model and convert it, ``x`` -> ``label``, ``probabilities``."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    model = {
        "linear": LogisticRegression(max_iter=300),
        "gbdt": GradientBoostingClassifier(n_estimators=50, random_state=0),
        "forest": RandomForestClassifier(100, max_depth=10, random_state=0),
        "mlp": MLPClassifier((64, 64), max_iter=60, random_state=0),
    }[name]
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    options = {id(model): {"zipmap": False}}
    graph = to_onnx(model, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}, options=options)
    raw: bytes = _renamed(graph).SerializeToString()
    return raw


def spec() -> ProfileSpec:
    """Return what a bundle of these models counts: all features, the label, the confidence."""
    x, _ = data()
    return ProfileSpec(
        (
            *(Stream(f"x{at}", "input", fit_numeric(x[:, at]), "x", at) for at in range(FEATURES)),
            Stream("label", "output", CategoricalGrid(tuple(str(at) for at in range(CLASSES))), "label"),
            Stream("confidence", "output", unit_interval_grid(), "probabilities", derive="row_max"),
        )
    )


def bundle(model: bytes, *, with_spec: bool = True, missing: str = "refused") -> tuple[str, dict[str, bytes]]:
    """Return a bundle of a model as digest and blobs; like most models it refuses missing values."""
    schema = linear_schema(FEATURES, CLASSES, missing=missing)
    return make_bundle(model, schema, spec=spec() if with_spec else None, golden={"x": sample(8)})


def load(model: bytes, *, spec: bool) -> LoadedModel:
    """Load a model as the agent does."""
    digest, blobs = bundle(model, with_spec=spec)
    return LoadedModel.load(from_blobs(digest, lambda name, _most: blobs[name]))


def _renamed(graph: object) -> object:
    for node in graph.graph.node:  # type: ignore[attr-defined]
        for at, name in enumerate(node.input):
            node.input[at] = "x" if name == "X" else name
    graph.graph.input[0].name = "x"  # type: ignore[attr-defined]
    return graph
