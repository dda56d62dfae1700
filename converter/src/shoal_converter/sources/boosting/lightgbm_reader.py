"""From a LightGBM model to an `Ensemble`, by its own text format (the one of ``save_model``).

LightGBM compares doubles: a row goes to the left where ``x <= threshold`` (src: include/LightGBM/tree.h,
NumericalDecision), a category where it is in the split's set (CategoricalDecision). Bits of ``decision_type``: 1
categorical, 2 missing goes left, 4 and 8 what is missing (0 nothing: NaN counts as 0, 1 zero and NaN, 2 NaN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.boosting.ensemble import (
    BoostingUnsupportedError,
    Columns,
    Decision,
    Ensemble,
    Link,
    Outside,
    Tree,
    Trees,
    ZeroMissing,
)

Array = npt.NDArray[Any]

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_ZERO = float(np.float32(1e-35))
_MISSING_NONE, _MISSING_ZERO = 0, 1
_IDENTITY = (
    *("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom", ""),
)


def is_classifier(booster: Any) -> bool:
    """Tell whether a booster's objective is one of classes."""
    return _objective(_header(_text(booster)))[0] in {"binary", "multiclass", "multiclassova"}


def is_ranker(booster: Any) -> bool:
    """Tell whether a booster's objective is an order within groups, so that its values mean nothing by themselves."""
    return _objective(_header(_text(booster)))[0] in {"lambdarank", "rank_xendcg"}


def read(booster: Any, *, classes: Array | None = None) -> Ensemble:
    """Read a booster, up to its best iteration as ``predict`` does.

    Args:
        booster: ``lightgbm.Booster``.
        classes: For a classifier, its classes; none: the answers are values.

    Raises:
        BoostingUnsupportedError: Linear trees, or an objective that is not known here.
    """
    text = _text(booster)
    header = _header(text)
    name, settings = _objective(header)
    scores = int(header.get("num_tree_per_iteration", 1))
    columns = Columns(int(header["max_feature_idx"]) + 1)
    blocks = text.split("\nTree=")[1:]
    trees = tuple(_tree(_fields(block), at % scores, columns) for at, block in enumerate(blocks))
    if not trees:
        raise BoostingUnsupportedError("a model without a tree; train for one round at least")
    rounds = len(blocks) // scores
    link = _link(name, settings)
    return Ensemble(
        Trees(trees, columns, "BRANCH_LEQ"),
        scores,
        "float64",
        link,
        _decision(name, scores, classes),
        factor=1.0 / rounds if "average_output" in header else 1.0,
        categories=_categories(booster, columns.features, text),
        classes=classes,
    )


def _text(booster: Any) -> str:
    return "\n" + str(booster.model_to_string())


def _header(text: str) -> dict[str, str]:
    return _fields(text.split("\nTree=", maxsplit=1)[0])


def _fields(block: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.splitlines():
        key, _, value = line.partition("=")
        if key == "end of trees":
            break
        fields.setdefault(key.strip(), value)
    return fields


def _objective(header: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    words = header.get("objective", "").split()
    settings = {key: value for key, _, value in (word.partition(":") for word in words[1:])}
    return (words[0] if words else ""), settings


def _link(name: str, settings: Mapping[str, str]) -> Link:
    if name in {"binary", "multiclassova"}:
        return Link("sigmoid", float(settings.get("sigmoid", 1.0)))
    if name == "multiclass":
        return Link("softmax")
    if name == "cross_entropy":
        return Link("sigmoid")
    if name == "cross_entropy_lambda":
        return Link("softplus")
    if name in {"poisson", "gamma", "tweedie"}:
        return Link("exp")
    if "sqrt" in settings:
        return Link("signed_square")
    if name in _IDENTITY:
        return Link()
    raise BoostingUnsupportedError(f"the objective {name!r} is not known here; train with a built-in one")


def _decision(name: str, scores: int, classes: Array | None) -> Decision:
    if classes is None:
        return "values"
    if name not in {"binary", "multiclass", "multiclassova", "cross_entropy"}:
        raise BoostingUnsupportedError(
            f"a classifier with the objective {name or 'custom'!r} gives no probabilities; "
            "train with binary, multiclass or multiclassova"
        )
    return "largest" if scores > 1 else "above_half"


def _numbers(fields: Mapping[str, str], key: str, kind: Any) -> Array:
    return np.array(fields.get(key, "").split(), dtype=np.float64).astype(kind)


def _tree(fields: Mapping[str, str], target: int, columns: Columns) -> Tree:
    if fields.get("is_linear", "0").strip() == "1":
        raise BoostingUnsupportedError(
            "linear trees have no exact form in ONNX's tree ensembles; use linear_tree=False"
        )
    leaf_values = _numbers(fields, "leaf_value", np.float64)
    leaves = int(fields["num_leaves"])
    splits = leaves - 1
    if splits == 0:
        nowhere = np.array([-1])
        none = np.zeros(1, bool)
        return Tree(nowhere, nowhere, np.array([0]), np.zeros(1), none, leaf_values[:1].reshape(1, 1), (target,))
    kinds = _numbers(fields, "decision_type", np.int64)
    threshold = _numbers(fields, "threshold", np.float64)
    # LightGBM reads numbers within 1e-35 of zero as zero, so at this threshold not even its own value goes left.
    threshold = np.where(threshold == -_ZERO, np.nextafter(threshold, -np.inf), threshold)
    column = _numbers(fields, "split_feature", np.int64)
    missing_left = (kinds & _DEFAULT_LEFT) > 0
    missing = (kinds >> 2) & 3
    is_set = (kinds & _CATEGORICAL) > 0
    missing_left = np.where((missing == _MISSING_NONE) & ~is_set, threshold >= 0, missing_left)
    for node in np.flatnonzero((missing == _MISSING_ZERO) & ~is_set):
        column[node] = columns.place(ZeroMissing(int(column[node])))
    for node in np.flatnonzero(is_set):
        codes = _codes(fields, int(threshold[node]))
        made = Outside(int(column[node]), codes, missing_stays=False, fraction="truncate")
        column[node], threshold[node], missing_left[node] = columns.place(made), 0.5, False

    def child(key: str) -> Array:
        # An inner node is named by its number, leaf i by ~i; here leaves come after the inner nodes.
        found = _numbers(fields, key, np.int64)
        return np.concatenate([np.where(found < 0, splits + ~found, found), np.full(leaves, -1)])

    rest = np.zeros(leaves)
    return Tree(
        child("left_child"),
        child("right_child"),
        np.concatenate([column, rest.astype(np.int64)]),
        np.concatenate([threshold, rest]),
        np.concatenate([missing_left, rest.astype(bool)]),
        np.concatenate([np.zeros(splits), leaf_values])[:, np.newaxis],
        (target,),
    )


def _codes(fields: Mapping[str, str], at: int) -> frozenset[int]:
    """Return the set of one categorical split: bits of the words between two boundaries."""
    boundaries = _numbers(fields, "cat_boundaries", np.int64)
    words = [int(word) for word in fields["cat_threshold"].split()[boundaries[at] : boundaries[at + 1]]]
    return frozenset(32 * place + bit for place, word in enumerate(words) for bit in range(32) if word >> bit & 1)


def _categories(booster: Any, features: int, text: str) -> dict[int, tuple[Any, ...]]:
    """Return the categories of each category column, which LightGBM lists in the order of the columns."""
    lists = getattr(booster, "pandas_categorical", None)
    if not lists:
        return {}
    infos = _header(text).get("feature_infos", "").split()
    # LightGBM writes the categories' codes of such a column as a list (0:1:2), an interval ([0:1]) for a number, and
    # "none" for a column of one value; only the data frame itself tells those apart.
    places = [at for at in range(features) if not infos[at].startswith("[") and infos[at] != "none"]
    if len(places) != len(lists):
        raise BoostingUnsupportedError(
            "category columns that can't be told from columns of one value; leave out the columns of one value"
        )
    return {at: tuple(values) for at, values in zip(places, lists, strict=True)}
