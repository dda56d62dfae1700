"""From a CatBoost model to an `Ensemble`, by its own JSON (``save_model(format="json")``).

CatBoost rounds features to float32, goes to the right where ``x > border`` (a float32), and sums leaves in double. What
a missing value does is a matter of the feature: ``AsTrue`` goes to the right, all else to the left. Symmetric trees
ask one question a level; bit i of a leaf's number is the answer to split i.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.boosting.ensemble import (
    BoostingUnsupportedError,
    Columns,
    Decision,
    Ensemble,
    Link,
    Tree,
    Trees,
)

Array = npt.NDArray[Any]

_LINKS: dict[str, Link] = {
    **dict.fromkeys(
        ("Logloss", "CrossEntropy", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"), Link("sigmoid")
    ),
    "MultiClass": Link("softmax"),
    **dict.fromkeys(("Poisson", "Tweedie"), Link("exp")),
    "RMSEWithUncertainty": Link("mean_and_variance"),
}
_IDENTITY = (
    *("RMSE", "MAE", "Quantile", "MultiQuantile", "Expectile", "LogLinQuantile", "LogCosh", "MAPE", "Lq", "Huber"),
    *("MultiRMSE", "MultiRMSEWithMissingValues", "Cox", "QueryRMSE", "PairLogit", "PairLogitPairwise", "YetiRank"),
    *("YetiRankPairwise", "LambdaMart", "StochasticRank", "QuerySoftMax", "GroupQuantile", "StochasticFilter"),
)
_RANKERS = (
    *("QueryRMSE", "PairLogit", "PairLogitPairwise", "YetiRank", "YetiRankPairwise", "LambdaMart", "StochasticRank"),
    *("QuerySoftMax", "StochasticFilter"),
)
_CLASSIFIERS = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")


def objective(model: Any) -> str:
    """Return the loss function's name, without its settings."""
    return str(model.get_all_params().get("loss_function", "")).partition(":")[0]


def is_classifier(model: Any) -> bool:
    """Tell whether a model's objective is one of classes."""
    return objective(model) in _CLASSIFIERS


def is_ranker(model: Any) -> bool:
    """Tell whether a model's objective is an order within groups, so that its values mean nothing by themselves."""
    return objective(model) in _RANKERS


def read(model: Any, *, classes: Array | None = None) -> Ensemble:
    """Read a model.

    Args:
        model: ``catboost.CatBoost`` or a class of it.
        classes: For a classifier, its classes; none: the answers are values.

    Raises:
        BoostingUnsupportedError: Features of categories, texts or embeddings, or an objective not known here.
    """
    raw = _json(model)
    name = objective(model)
    if name not in _LINKS and name not in _IDENTITY:
        raise BoostingUnsupportedError(f"the loss function {name!r} is not known here; train with a built-in one")
    info = raw["features_info"]
    for kind, way_round in (
        ("categorical_features", "OrdinalEncoder or OneHotEncoder before CatBoost, in one pipeline"),
        ("text_features", "TfidfVectorizer before CatBoost, in one pipeline"),
        ("embedding_features", "the embedding's numbers as features"),
    ):
        if info.get(kind):
            raise BoostingUnsupportedError(
                f"{kind.replace('_', ' ')} go through CatBoost's own hashed statistics; train with {way_round}"
            )
    features = {int(entry["feature_index"]): entry for entry in info["float_features"]}
    places = {at: int(entry["flat_feature_index"]) for at, entry in features.items()}
    to_right = {at for at, entry in features.items() if entry["nan_value_treatment"] == "AsTrue"}
    factor, bias = raw["scale_and_bias"]
    shift = np.atleast_1d(np.array(bias, np.float64))
    columns = Columns(max([*places.values(), -1]) + 1)
    grown = [_symmetric(tree, places, to_right, len(shift)) for tree in raw.get("oblivious_trees") or []]
    grown += [_free(tree, places, to_right, len(shift)) for tree in raw.get("trees") or []]
    link = (
        _LINKS.get(name, Link())
        if classes is not None or name in {"Poisson", "Tweedie", "RMSEWithUncertainty"}
        else Link()
    )
    return Ensemble(
        Trees(tuple(grown), columns, "BRANCH_LEQ"),
        len(shift),
        "float64",
        link,
        _decision(name, classes, len(shift)),
        factor=float(factor),
        shift=shift,
        threshold=_threshold(model),
        rounds_inputs=True,
        classes=classes,
    )


def _decision(name: str, classes: Array | None, scores: int) -> Decision:
    if classes is None:
        return "values"
    if name.startswith("Multi") and name not in _CLASSIFIERS:
        return "each_above_half"
    return "largest" if scores > 1 else "positive"


def _threshold(model: Any) -> float:
    """Return the score above which the second class of two is the label."""
    given = model.get_metadata().get("binclass_probability_threshold", "")
    return float(np.log(float(given) / (1 - float(given)))) if given else 0.0


def _json(model: Any) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory(prefix="shoal-catboost-") as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        loaded: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return loaded


def _symmetric(tree: Mapping[str, Any], places: Mapping[int, int], to_right: set[int], scores: int) -> Tree:
    """Return the full binary tree of a symmetric one, as a heap: children of node i are 2 i + 1 and 2 i + 2."""
    splits = tree["splits"] or []
    depth = len(splits)
    inner, ends = 2**depth - 1, 2**depth
    level = np.concatenate([np.full(2**at, at) for at in range(depth)]) if depth else np.zeros(0, np.int64)
    asked = np.array([int(split["float_feature_index"]) for split in splits], np.int64)
    borders = np.array([np.float32(split["border"]) for split in splits], np.float64)
    nodes = np.arange(inner)
    order = np.zeros(ends, np.int64)
    for bit in range(depth):  # the first split is the highest bit of a place in the heap and the lowest of a leaf
        order |= ((np.arange(ends) >> (depth - 1 - bit)) & 1) << bit
    values = np.array(tree["leaf_values"], np.float64).reshape(ends, scores)[order]
    rest = np.zeros(ends, np.int64)
    place = np.array([places[int(at)] for at in asked], np.int64)
    left = np.array([int(at) not in to_right for at in asked], bool)
    return Tree(
        np.concatenate([2 * nodes + 1, rest - 1]),
        np.concatenate([2 * nodes + 2, rest - 1]),
        np.concatenate([place[level], rest]),
        np.concatenate([borders[level], rest]),
        np.concatenate([left[level], rest.astype(bool)]),
        np.concatenate([np.zeros((inner, scores)), values]),
        tuple(range(scores)),
    )


def _free(tree: Mapping[str, Any], places: Mapping[int, int], to_right: set[int], scores: int) -> Tree:
    """Return a tree that is given as nested nodes."""
    rows: list[list[float]] = []
    values: list[Any] = []
    waiting: list[tuple[Mapping[str, Any], int, int]] = [(tree, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if parent >= 0:
            rows[parent][side] = len(rows)
        if "split" not in node:
            rows.append([-1, -1, 0, 0.0, 0])
            values.append(np.atleast_1d(np.array(node["value"], np.float64)))
            continue
        split = node["split"]
        feature = int(split["float_feature_index"])
        waiting += [(node["right"], len(rows), 1), (node["left"], len(rows), 0)]
        rows.append([-1, -1, places[feature], float(np.float32(split["border"])), feature not in to_right])
        values.append(np.zeros(scores))
    table = np.array(rows, np.float64)
    left, right, column = (table[:, at].astype(np.int64) for at in range(3))
    return Tree(left, right, column, table[:, 3], table[:, 4] > 0, np.stack(values), tuple(range(scores)))
