"""What a boosting model computes, as a value: columns, trees or a linear map, a link.

Owns the neutral form that the readers of XGBoost, LightGBM and CatBoost make and that `nodes` writes as ONNX. Pure: no
framework is imported. A split sends a row to the left where ``value < threshold`` or ``<=`` it (one rule an ensemble),
else to the right; a missing value goes where the split says. What a comparison with a number can't say (membership in a
set of categories, zero as missing) becomes a column made before the trees, so that every split is a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import UnsupportedModelError

Array = npt.NDArray[Any]
Rule = Literal["BRANCH_LT", "BRANCH_LEQ"]
Arithmetic = Literal["float32", "float64"]
LinkName = Literal["identity", "sigmoid", "softmax", "exp", "step", "signed_square", "softplus", "mean_and_variance"]
Decision = Literal["values", "largest", "above_half", "each_above_half", "positive"]


class BoostingUnsupportedError(RuntimeError):
    """A model has a part without an exact form here; the text says which, and after a semicolon what cures it."""


def unsupported(step: str, error: BoostingUnsupportedError) -> UnsupportedModelError:
    """Return the refusal that a reader's words make."""
    why, _, way_round = str(error).partition("; ")
    return UnsupportedModelError(step, why, way_round or "train without it")


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree; its root is node 0.

    Attributes:
        left: Node on the left, -1 at a leaf, shape (nodes,).
        right: Node on the right, -1 at a leaf.
        column: Which of the ensemble's columns is compared.
        threshold: With what, in double.
        missing_left: Whether a missing value goes to the left.
        values: What a leaf adds, shape (nodes, len(targets)).
        targets: To which scores.
    """

    left: Array
    right: Array
    column: Array
    threshold: Array
    missing_left: Array
    values: Array
    targets: tuple[int, ...]


def single_leaf(values: Array) -> Tree:
    """Return a tree of one leaf: a constant for each score, which then is the first thing summed."""
    nowhere, none = np.array([-1]), np.array([0])
    return Tree(
        nowhere, nowhere, none, np.zeros(1), np.zeros(1, bool), values.reshape(1, -1), tuple(range(values.size))
    )


@dataclass(frozen=True)
class ZeroMissing:
    """A feature whose zeros (``|x| <= 1e-35``) count as missing."""

    feature: int


@dataclass(frozen=True)
class Outside:
    """0 where a feature's category is one of a set, 1 where it is not.

    Attributes:
        feature: Which one.
        codes: The set.
        missing_stays: Whether a missing category stays missing; else it is outside.
        fraction: How a number becomes a code: to the next lower whole number, or cut towards zero.
    """

    feature: int
    codes: frozenset[int]
    missing_stays: bool
    fraction: Literal["floor", "truncate"]


class Columns:
    """The columns that splits compare: the features themselves, then the made ones in order of first use."""

    def __init__(self, features: int) -> None:
        self.features = features
        self._made: dict[ZeroMissing | Outside, int] = {}

    @property
    def made(self) -> tuple[ZeroMissing | Outside, ...]:
        """The made columns, in order."""
        return tuple(self._made)

    def place(self, column: ZeroMissing | Outside) -> int:
        """Return a made column's index, which is a new one when it is needed for the first time."""
        return self._made.setdefault(column, self.features + len(self._made))


@dataclass(frozen=True, eq=False)
class Trees:
    """Scores as sums of leaves.

    Attributes:
        trees: In the order in which they are summed.
        columns: What they compare.
        rule: How they compare.
    """

    trees: tuple[Tree, ...]
    columns: Columns
    rule: Rule


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores as ``x W + b``, a missing value counting as zero: W [features, scores], b [scores]."""

    weights: Array
    bias: Array


@dataclass(frozen=True)
class Link:
    """From scores to answers; sigmoid is ``1 / (1 + exp(-scale x))``."""

    name: LinkName = "identity"
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A boosting model.

    Attributes:
        body: From columns to scores.
        scores: How many scores a row has.
        arithmetic: In which type values are compared and leaves are summed.
        link: From scores to answers.
        decision: ``values``: the answers are the output; else how a label follows from them (``positive``: from the
            score alone), which then are the second output.
        factor: Scores are multiplied by it (an average of trees).
        shift: Added to the scores after that, in double, shape (scores,).
        rounds_inputs: Whether the framework rounds features to float32 before it compares them.
        categories: For a feature of categories, its values in the order of their codes.
        missing: A number that counts as missing, beside NaN.
        threshold: For the decision ``positive``, above which score.
        raw: For a classifier, scores are asked for in place of probabilities.
        exactly: Whether trees of float64 are added one by one, as the framework does, and not in float32.
        classes: For a classifier, its classes in the order of the answers.
    """

    body: Trees | Linear
    scores: int
    arithmetic: Arithmetic
    link: Link = Link()
    decision: Decision = "values"
    factor: float = 1.0
    shift: Array | None = None
    rounds_inputs: bool = False
    categories: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    missing: float | None = None
    threshold: float = 0.0
    raw: bool = False
    exactly: bool = False
    classes: Array | None = None
