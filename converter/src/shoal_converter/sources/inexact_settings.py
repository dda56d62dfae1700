"""Settings of steps whose exported form answers otherwise, and what to train with in their place.

Owns the advice only: parity has found that a model differs, and this looks through its steps for a known cause.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal_converter.sources.vectorisers import WORD_PATTERNS

_LETTERS_TOO = "token_pattern=r'(?u)\\b\\w+\\b'"
_ANY_OF_EQUALS = (
    "KNNImputer takes one of several training rows that are equally far by an order of numpy's that differs between "
    "processors: train with IterativeImputer or SimpleImputer in its place"
)
_ITERATING = frozenset({"LatentDirichletAllocation"})
_VECTORISERS = ("CountVectorizer", "TfidfVectorizer")


def advice(model: Any, rows: Any) -> str:
    """Return what to change about the model's steps; empty where nothing known stands in the way.

    Args:
        model: Fitted.
        rows: Of the sample, as the model takes them.
    """
    name = type(model).__name__
    found = [each for step in _steps(model) for each in _changes(step)]
    if getattr(rows, "dtype", None) == np.float32 and (hasattr(model, "steps") or name in _ITERATING):
        found.append(
            "train on float64 rows, X.astype('float64'): scikit-learn computes float32 rows in float32, and devices "
            "in float64"
        )
    return "; ".join(dict.fromkeys(found))


def _steps(model: Any) -> list[Any]:
    own = [model] if hasattr(model, "get_params") else []
    inner = model.get_params(deep=True).values() if own else ()
    return [step for step in [*own, *inner] if type(step).__name__ in {*_VECTORISERS, "KNNImputer"}]


def _changes(step: Any) -> list[str]:
    name, found = type(step).__name__, []
    if name == "KNNImputer":
        return [_ANY_OF_EQUALS]
    if step.analyzer == "word" and step.tokenizer is None and step.token_pattern not in WORD_PATTERNS:
        found.append(
            f"train {name} with scikit-learn's own token_pattern or {_LETTERS_TOO}: another one is read otherwise on "
            "devices"
        )
    if step.stop_words is not None and max(step.ngram_range) > 1:
        found.append(
            f"train {name} either with stop_words=None or with ngram_range=(1, 1): the graph can't leave words out "
            "between the words of a pair"
        )
    return found
