"""Vectorisers of texts are exact on texts in any script: capitals, accents, blanks, ligatures and unknown letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from shoal_converter import UnsupportedModelError, to_onnx

SENTENCE = """the a fox Fox's naïve café CAFÉ Ünder über straße x1 1990 don't e-mail I e_mail résumé 100% ﬁne İstanbul ǅ
日本 日 한국 é ½ … ⑽ K"""
WORDS = np.array(SENTENCE.split())
BLANKS = np.array([" ", "  ", "\t", "\n ", "\u00a0", "\u3000", ", ", "-"])


def texts(seed: int, count: int) -> list[str]:
    """Draw texts; seeds draw other texts of the same words, and the last of each is empty."""
    rng = np.random.default_rng(seed)
    return [
        "".join(w + rng.choice(BLANKS) for w in rng.choice(WORDS, rng.integers(0, 9))) for _ in range(count - 1)
    ] + [""]


SETTINGS: dict[str, dict[str, Any]] = {
    "words": {},
    "capitals": {"lowercase": False},
    "without accents": {"strip_accents": "unicode"},
    "ASCII alone": {"strip_accents": "ascii"},
    "pairs of words": {"ngram_range": (1, 2), "strip_accents": "unicode"},
    "single letters": {"token_pattern": r"(?u)\b\w+\b", "ngram_range": (1, 3)},
    "stop words": {"stop_words": "english"},
    "characters": {"analyzer": "char", "ngram_range": (1, 3)},
    "characters, ASCII": {"analyzer": "char", "ngram_range": (2, 3), "strip_accents": "ascii"},
    "characters of words": {"analyzer": "char_wb", "ngram_range": (3, 5)},
    "characters of words, without accents": {"analyzer": "char_wb", "ngram_range": (1, 4), "strip_accents": "unicode"},
    "present or not": {"binary": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_terms_are_counted_as_scikit_learn_counts_them(name: str) -> None:
    seen, unseen = texts(1, 80), texts(2, 400)
    model = CountVectorizer(**SETTINGS[name], min_df=2).fit(seen)
    session = ort.InferenceSession(to_onnx(model, seen))
    found = session.run(None, {"x": np.array(unseen, dtype=object).reshape(-1, 1)})[0]
    np.testing.assert_array_equal(found, model.transform(unseen).toarray())


def test_terms_are_weighed_by_their_rarity() -> None:
    seen, unseen = texts(1, 80), texts(2, 100)
    model = TfidfVectorizer(sublinear_tf=True, norm="l1", strip_accents="unicode").fit(seen)
    session = ort.InferenceSession(to_onnx(model, seen))
    found = session.run(None, {"x": np.array(unseen, dtype=object).reshape(-1, 1)})[0]
    np.testing.assert_allclose(found, model.transform(unseen).toarray(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Upper case characters")
def test_a_given_vocabulary_counts_what_texts_can_have() -> None:
    model = CountVectorizer(vocabulary=["fox", "Fox", "x", "the fox", "café", "zz"])
    rows = ["the Fox FOX x café", "CAFÉ"]
    found = ort.InferenceSession(to_onnx(model.fit(rows), rows)).run(
        None, {"x": np.array([[each] for each in rows], object)}
    )
    np.testing.assert_array_equal(found[0], model.transform(rows).toarray())


def test_a_letter_whose_small_form_depends_on_the_next_is_refused() -> None:
    rows = ["ΟΔΟΣ οδος", "ΣΟΦΙΑ"]
    with pytest.raises(UnsupportedModelError, match="sigma") as caught:
        to_onnx(CountVectorizer().fit(rows), rows)
    assert "lowercase=False" in str(caught.value)
