"""Settings of vectorisers of texts whose exported form answers otherwise, and what to train with in their place.

Owns the advice only: parity has found that a model differs, and this looks through its vectorisers for a known cause.
"""

from __future__ import annotations

from typing import Any

from shoal_converter.sources.vectorisers import WORD_PATTERNS

_LETTERS_TOO = "token_pattern=r'(?u)\\b\\w+\\b'"
_VECTORISERS = ("CountVectorizer", "TfidfVectorizer")


def advice(model: Any) -> str:
    """Return what to change about the model's vectorisers; empty where nothing known stands in the way."""
    found = [each for step in _vectorisers(model) for each in _changes(step)]
    return "; ".join(dict.fromkeys(found))


def _vectorisers(model: Any) -> list[Any]:
    own = [model] if hasattr(model, "get_params") else []
    inner = model.get_params(deep=True).values() if own else ()
    return [step for step in [*own, *inner] if type(step).__name__ in _VECTORISERS]


def _changes(step: Any) -> list[str]:
    name, found = type(step).__name__, []
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
