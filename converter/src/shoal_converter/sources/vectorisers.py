"""scikit-learn's vectorisers of texts, as formulas: a term is a run of character codes, and runs are counted.

A word is the run ``separator, its letters, separator``; a pair of words one with a separator between them; characters
are runs as they are. So one operator counts them all, and no text is ever put together on the device. `letters` says
what characters become.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.letters import (
    OTHER,
    SEPARATOR,
    SPACE,
    Alphabet,
    coded,
    interleaved,
    is_word,
    shifted,
    without,
)

WORD_PATTERNS = {r"(?u)\b\w\w+\b": 2, r"(?u)\b\w+\b": 1}
"""Expressions for words that have a form, and how many letters a word has at least."""
_GAP = np.int64(-1)
_SIGMAS = frozenset("σς")
_BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())


def has_known_terms(model: Any) -> bool:
    """Tell whether a vectoriser's terms are words or characters as scikit-learn's own settings find them."""
    plain = model.tokenizer is None and model.preprocessor is None and model.strip_accents in {None, "ascii", "unicode"}
    if not plain or model.input != "content":
        return False
    if model.analyzer == "word":
        return model.token_pattern in WORD_PATTERNS and (model.stop_words is None or model.ngram_range[1] == 1)
    return model.analyzer in {"char", "char_wb"}


def count_vectorizer(f: Formula, model: Any) -> tuple[str, ...]:
    """How often each term is in a text, or whether it is."""
    return (_counts(f, model),)


def tfidf_vectorizer(f: Formula, model: Any) -> tuple[str, ...]:
    """Counts, or 1 + log of them, times each term's rarity, as shares of the row's length (Salton, 1988)."""
    counts = _counts(f, model)
    if model.sublinear_tf:
        there = f.node("Greater", counts, 0.0)
        logs = f.node("Add", f.node("Log", f.node("Where", there, counts, 1.0)), 1.0)
        counts = f.node("Where", there, logs, 0.0)
    if model.use_idf:
        counts = f.node("Mul", counts, np.asarray(model.idf_, dtype=np.float64)[np.newaxis])
    if model.norm is None:
        return (counts,)
    size = f.total(f.node("Abs", counts) if model.norm == "l1" else f.node("Mul", counts, counts))
    length = size if model.norm == "l1" else f.node("Sqrt", size)
    return (f.node("Div", counts, f.node("Where", f.node("Equal", length, 0.0), 1.0, length)),)


def _counts(f: Formula, model: Any) -> str:
    """Return how often each term is in each row, [N, terms].

    Raises:
        RuntimeError: A capital sigma would become one letter or another by what follows it; or no term can be found.
    """
    if model.lowercase and _SIGMAS & set("".join(model.vocabulary_)):
        raise RuntimeError(
            "the terms hold the Greek letter sigma, whose small form depends on what follows: put the texts into "
            "small letters before training and predicting, and train with lowercase=False"
        )
    alphabet = _alphabet(model)
    codes = coded(f, alphabet)
    find = {"word": _words, "char": _characters, "char_wb": _characters_of_words}[model.analyzer]
    counts = _runs(f, find(f, model, codes, alphabet), _terms(model, alphabet), len(model.vocabulary_))
    return f.number(f.node("Greater", counts, 0.0)) if model.binary else counts


def _alphabet(model: Any) -> Alphabet:
    words = model.analyzer == "word"
    letters = sorted(set("".join(model.vocabulary_)))
    first = [] if words else [" ", *(blank for blank in _BLANKS if blank != " ")]
    known = [letter for letter in letters if letter not in first and (not words or is_word(letter))]
    codes = {letter: SPACE + at for at, letter in enumerate([*first, *known])}
    several = words and model.ngram_range[1] > 1  # then an unknown word of two letters parts others, a lone letter not
    return Alphabet(codes, bool(model.lowercase), model.strip_accents, words, longest=2 if several else 1)


def _terms(model: Any, alphabet: Alphabet) -> dict[tuple[int, ...], int]:
    """Return the place of each term by its run of codes; terms that no text can have are left out."""
    least, most = model.ngram_range
    found = {}
    for term, place in model.vocabulary_.items():
        if model.analyzer == "word":
            parts = term.split(" ")
            letters = WORD_PATTERNS[model.token_pattern]
            if least <= len(parts) <= most and all(len(p) >= letters and all(map(is_word, p)) for p in parts):
                runs = [[SEPARATOR, *(alphabet.codes[letter] for letter in part)] for part in parts]
                found[(*(code for run in runs for code in run), SEPARATOR)] = int(place)
            continue
        whole = model.analyzer == "char_wb" and len(term) > 2 and term[0] == term[-1] == " "
        if least <= len(term) <= most or (whole and len(term) < least):
            found[tuple(alphabet.codes[letter] for letter in term)] = int(place)
    return found


def _words(f: Formula, model: Any, codes: str, _: Alphabet) -> str:
    """Return the codes with lone letters taken as separators; for terms of several words, one alone between two."""
    if WORD_PATTERNS[model.token_pattern] > 1:
        beside = [f.node("Equal", shifted(f, codes, by, SEPARATOR), np.int64(SEPARATOR)) for by in (1, -1)]
        codes = f.node("Where", f.node("And", *beside), np.int64(SEPARATOR), codes)  # letters that stand alone
    if model.ngram_range[1] == 1:
        return codes
    here = f.node("Equal", codes, np.int64(SEPARATOR))
    before = f.node("Equal", shifted(f, codes, 1, OTHER), np.int64(SEPARATOR))
    return without(f, f.node("Where", f.node("And", here, before), _GAP, codes), _GAP)


def _blank(f: Formula, codes: str) -> str:
    last = SPACE + len(_BLANKS) - 1
    return f.node("And", f.node("GreaterOrEqual", codes, np.int64(SPACE)), f.node("LessOrEqual", codes, np.int64(last)))


def _characters(f: Formula, model: Any, codes: str, _: Alphabet) -> str:  # noqa: ARG001 - one signature for all
    """Return the codes with one blank for two and more of any kind."""
    blank = _blank(f, codes)
    before, after = (_blank(f, shifted(f, codes, by, SEPARATOR)) for by in (1, -1))
    first = f.node("Where", f.node("And", blank, after), np.int64(SPACE), codes)
    return without(f, f.node("Where", f.node("And", blank, before), _GAP, first), _GAP)


def _characters_of_words(f: Formula, model: Any, codes: str, _: Alphabet) -> str:  # noqa: ARG001 - as above
    """Return the codes with a blank before each word and after it, and a separator in place of blanks between them."""
    between = f.node("Or", _blank(f, codes), f.node("Equal", codes, np.int64(SEPARATOR)))
    inside = f.node("Not", between)
    marks = f.node("Cast", between, to=TensorProto.INT64)
    begins, ends = (f.node("And", inside, f.node("Equal", shifted(f, marks, by, 1), np.int64(1))) for by in (1, -1))
    blank = f.node("Add", f.node("Mul", codes, np.int64(0)), np.int64(SPACE))
    sides = [f.node("Where", each, blank, _GAP) for each in (begins, ends)]
    middle = f.node("Where", between, np.int64(SEPARATOR), codes)
    return without(f, interleaved(f, [sides[0], middle, sides[1]]), _GAP)


def _runs(f: Formula, codes: str, terms: dict[tuple[int, ...], int], count: int) -> str:
    """Return how often each run of codes is in each row, [N, count], in double."""
    if not terms:
        raise RuntimeError("none of its terms can be in a text: was the vocabulary made with other settings?")
    lengths = sorted({len(run) for run in terms})
    pool: list[int] = []
    places, starts = [], []
    for length in range(1, lengths[-1] + 1):
        starts.append(len(pool))
        for run, place in terms.items():
            if len(run) == length:
                pool.extend(run)
                places.append(place)
    if count - 1 not in places:  # the operator is as wide as the last place that it knows
        starts.append(len(pool))
        pool.extend([-9] * (lengths[-1] + 1))
        places.append(count - 1)
    found = f.node(
        "TfIdfVectorizer", codes, mode="TF", max_skip_count=0, min_gram_length=lengths[0],
        max_gram_length=len(starts), ngram_counts=starts, ngram_indexes=places, pool_int64s=pool,
    )  # fmt: skip
    return f.node("Cast", found, to=TensorProto.DOUBLE)
