"""From an XGBoost model to an `Ensemble`, by its own JSON (doc/model.schema of XGBoost 3).

XGBoost keeps features, thresholds and sums in float32: a row goes to the left where ``x < threshold``; a category to
the right where it is in the split's set. Scores start at the margin of `base_score` and trees are added in order,
so that margin is written as the first tree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.boosting.ensemble import (
    BoostingUnsupportedError,
    Columns,
    Decision,
    Ensemble,
    Linear,
    Link,
    LinkName,
    Outside,
    Tree,
    Trees,
    single_leaf,
)

Array = npt.NDArray[Any]

_LINKS: dict[str, LinkName] = {
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "sigmoid"),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"), "exp"),
    **dict.fromkeys(("multi:softprob", "multi:softmax"), "softmax"),
    "binary:hinge": "step",
    **dict.fromkeys(
        (
            *("reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror"),
            *("reg:quantileerror", "reg:expectileerror", "reg:linear", "binary:logitraw"),
            *("rank:pairwise", "rank:ndcg", "rank:map"),
        ),
        "identity",
    ),
}
_ASCII = 128
_CLASSIFIERS = ("binary:logistic", "binary:hinge", "multi:softprob", "multi:softmax")


def is_classifier(booster: Any) -> bool:
    """Tell whether a booster's objective is one of classes."""
    config = json.loads(booster.save_config())
    return config["learner"]["objective"]["name"] in _CLASSIFIERS


def is_ranker(booster: Any) -> bool:
    """Tell whether a booster's objective is an order within groups, so that its values mean nothing by themselves."""
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"]).startswith("rank:")


def class_count(booster: Any) -> int:
    """Return the number of classes of a booster whose objective is one of classes."""
    parameters = json.loads(booster.save_config())["learner"]["learner_model_param"]
    return max(int(parameters["num_class"]), 2)


def categories_of(booster: Any) -> dict[int, tuple[Any, ...]]:
    """Return the categories of each feature that was trained on a data frame's category column."""
    trained = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    model = trained["gbtree"]["model"] if trained["name"] == "dart" else trained["model"]
    return _categories(model.get("cats") or {})


def read(
    booster: Any, *, rounds: int | None = None, missing: float = float("nan"), classes: Array | None = None
) -> Ensemble:
    """Read a booster.

    Args:
        booster: ``xgboost.Booster``.
        rounds: How many rounds answer; none: all.
        missing: The number that counts as missing beside NaN.
        classes: For a classifier, its classes; none: the answers are values.

    Raises:
        BoostingUnsupportedError: The objective is not known here.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = str(learner["objective"]["name"])
    if objective not in _LINKS:
        raise BoostingUnsupportedError(f"the objective {objective!r} is not known here; train with a built-in one")
    link = _LINKS[objective]
    parameters = learner["learner_model_param"]
    scores = max(int(parameters["num_class"]), int(parameters["num_target"]), 1)
    base = _margin(np.atleast_1d(np.array(json.loads(parameters["base_score"]), np.float64)), link)
    base = np.broadcast_to(base, (scores,)).astype(np.float32)
    features = int(parameters["num_feature"])
    trained = learner["gradient_booster"]
    body: Trees | Linear
    categories: dict[int, tuple[Any, ...]] = {}
    if trained["name"] == "gblinear":
        weights = np.array(trained["model"]["weights"], np.float64).reshape(features + 1, scores)
        # XGBoost's linear booster adds the first base score to every score, also where there is one for each.
        body = Linear(weights[:-1], weights[-1] + base[0])
    else:
        model = trained["gbtree"]["model"] if trained["name"] == "dart" else trained["model"]
        categories = _categories(model.get("cats") or {})
        body = _trees(model, trained.get("weight_drop"), rounds, base, features)
    return Ensemble(
        body,
        scores,
        "float32",
        Link(link),
        _decision(link, scores, classes),
        rounds_inputs=True,
        categories=categories,
        missing=None if np.isnan(missing) else float(missing),
        classes=classes,
    )


def _decision(link: LinkName, scores: int, classes: Array | None) -> Decision:
    if classes is None:
        return "values"
    if link == "softmax":
        return "largest"
    return "above_half" if scores == 1 else "each_above_half"


def _margin(base: Array, link: LinkName) -> Array:
    """Return the margin of a base score (ObjFunction::ProbToMargin)."""
    base = base.astype(np.float32)
    if link == "sigmoid":
        return np.asarray(-np.log(np.float32(1) / base - np.float32(1)))
    return np.asarray(np.log(base)) if link == "exp" else base


def _trees(
    model: Mapping[str, Any], weights: list[float] | None, rounds: int | None, base: Array, features: int
) -> Trees:
    columns = Columns(features)
    indptr = model["iteration_indptr"]
    last = len(model["trees"]) if rounds is None else indptr[min(rounds, len(indptr) - 1)]
    found = [single_leaf(base.astype(np.float64))]
    for at, raw in enumerate(model["trees"][:last]):
        factor = np.float32(weights[at]) if weights else np.float32(1)
        found.append(_tree(raw, int(model["tree_info"][at]), factor, columns))
    return Trees(tuple(found), columns, "BRANCH_LT")


def _tree(raw: Mapping[str, Any], target: int, factor: np.float32, columns: Columns) -> Tree:
    left = np.array(raw["left_children"], np.int64)
    right = np.array(raw["right_children"], np.int64)
    conditions = np.array(raw["split_conditions"], np.float32)
    leaf = left < 0
    width = int(raw["tree_param"]["size_leaf_vector"])
    if width > 1:
        # In a tree of vector leaves, a leaf's right child is the index of its vector.
        vectors = np.array(raw["leaf_weights"], np.float32).reshape(-1, width)
        values = np.zeros((len(left), width), np.float32)
        values[leaf] = vectors[right[leaf]] if (right[leaf] >= 0).all() else vectors[: int(leaf.sum())]
        targets = tuple(range(width))
    else:
        values, targets = conditions[:, np.newaxis], (target,)
    column = np.array(raw["split_indices"], np.int64)
    threshold = conditions.astype(np.float64)
    for node, codes in _sets(raw):
        column[node] = columns.place(Outside(int(column[node]), codes, missing_stays=True, fraction="floor"))
        threshold[node] = 0.5
        left[node], right[node] = right[node], left[node]
    missing_left = np.array(raw["default_left"], np.int64).astype(bool)
    swapped = [node for node, _ in _sets(raw)]
    missing_left[swapped] = ~missing_left[swapped]
    return Tree(left, np.where(leaf, -1, right), column, threshold, missing_left, values * factor, targets)


def _sets(raw: Mapping[str, Any]) -> list[tuple[int, frozenset[int]]]:
    """Return the nodes that split by categories, each with its set (which goes to the right)."""
    codes = raw.get("categories") or []
    parts = zip(
        raw.get("categories_nodes") or [],
        raw.get("categories_segments") or [],
        raw.get("categories_sizes") or [],
        strict=True,
    )
    return [(int(node), frozenset(int(code) for code in codes[at : at + size])) for node, at, size in parts]


def _categories(container: Mapping[str, Any]) -> dict[int, tuple[Any, ...]]:
    """Return the categories of each feature that was trained on a data frame's category column."""
    found: dict[int, tuple[Any, ...]] = {}
    for feature, entry in enumerate(container.get("enc") or []):
        offsets, values = entry.get("offsets"), entry.get("values") or []
        if offsets is None and values:
            found[feature] = tuple(values)
        elif offsets:
            if any(not 0 <= value < _ASCII for value in values):
                # XGBoost 3.2 counts letters and stores bytes, so such texts are cut short in the model.
                raise BoostingUnsupportedError(
                    "XGBoost stores categories with letters beyond ASCII cut short; rename them before training"
                )
            text = bytes(values).decode("ascii")
            found[feature] = tuple(text[a:b] for a, b in pairwise(offsets))
    return found
