r"""Texts as numbers: each character, put into small letters and without accents, becomes a code, many rows at once.

Owns what scikit-learn's vectorisers do before they look for words: ``str.lower()``, ``strip_accents``, and which
characters make a word (``\w``: Python's ``str.isalnum()`` or an underscore). Operators of ONNX know capitals by the
device's locale only; so the table of what each character becomes is made here, from Python's own. A character may
become several, or none.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto

from shoal_converter.sources.formula import Formula

SEPARATOR, OTHER, SPACE = 0, 1, 2
"""Codes: what parts words, a character that no term has, and a blank; then come the others."""
_GAP, _UNLISTED = -1, -2
_END = "end"
"""What stands after the last character of a row; a character is never three letters long."""
_WORDS = r"[\p{L}\p{N}_]+"
_CASED_OR_COMPOSED = (*range(0xD800), *range(0xE000, 0x33480))
"""Characters that may become others: all up to the last ideographs, save surrogates."""


@dataclass(frozen=True)
class Alphabet:
    """What each character becomes.

    Attributes:
        codes: Code of each character that a term has.
        lowercase: Whether characters are put into small letters before they are looked for.
        strip_accents: ``unicode``: they are decomposed, and marks go; ``ascii``: what is beyond ASCII goes, too.
        words: Whether characters outside `codes` are told apart as those of words and those between them.
        longest: How many unknown ones side by side make a difference, of those that one character becomes.
    """

    codes: dict[str, int]
    lowercase: bool
    strip_accents: str | None
    words: bool
    longest: int = 1

    def listed(self) -> dict[str, list[int]]:
        """Return the codes of the characters that become something else than the usual."""
        found = {character: self._become(normal) for character, normal in _changed(self.lowercase, self.strip_accents)}
        alike = map(chr, range(128)) if self.strip_accents == "ascii" else self.codes
        found |= {character: self._become(character) for character in alike if character not in found}
        return {character: codes for character, codes in found.items() if codes != self._usual(character)}

    def _become(self, texts: str) -> list[int]:
        """Return the codes of characters; of unknown ones side by side no more than make a difference."""
        found: list[int] = []
        for each in texts:
            code = self.codes.get(each, OTHER if not self.words or is_word(each) else SEPARATOR)
            most = self.longest if code == OTHER else 1
            if code > OTHER or found[-most:] != [code] * most:
                found.append(code)
        return found

    def _usual(self, character: str) -> list[int]:
        if self.strip_accents == "ascii":
            return []
        return [OTHER if not self.words or is_word(character) else SEPARATOR]


def is_word(character: str) -> bool:
    """Tell whether a character is one of a word, as Python's regular expressions have it."""
    return character.isalnum() or character == "_"


@cache
def _changed(lowercase: bool, strip_accents: str | None) -> tuple[tuple[str, str], ...]:  # noqa: FBT001 - a key of the cache
    """Return the characters that become something else, and what; in ASCII those that leave something."""

    def normal(character: str) -> str:
        small = character.lower() if lowercase else character
        if strip_accents is None or small.isascii():
            return small
        parts = unicodedata.normalize("NFKD", small)
        if strip_accents == "ascii":
            return "".join(part for part in parts if part.isascii())
        return "".join(part for part in parts if not unicodedata.combining(part))

    pairs = ((character, normal(character)) for character in map(chr, _CASED_OR_COMPOSED))
    return tuple(
        (character, after) for character, after in pairs if after != character and (after or strip_accents != "ascii")
    )


def coded(f: Formula, alphabet: Alphabet) -> str:
    """Return each row's characters as codes, [N, L], with a separator before the first and some after the last one."""
    rows = f.flat(f.x)
    characters = f.node(
        "Tokenizer", rows, op_domain="com.microsoft", op_version=1,
        mark=0, separators=[""], pad_value=_END, mincharnum=1,
    )  # fmt: skip
    count = f.node("Shape", rows)
    ends = f.node("Expand", np.array([[_END]]), f.node("Concat", count, np.array([1]), axis=0))
    characters = f.node("Concat", ends, characters, ends, axis=1)  # a Tokenizer has no type: the first says it
    in_ascii = alphabet.strip_accents == "ascii"
    listed = alphabet.listed() | {_END: [SEPARATOR]}
    slots = []
    for slot in range(max(len(codes) for codes in listed.values())):
        unlisted = _GAP if slot or in_ascii else _UNLISTED
        there = {key: codes[slot] if slot < len(codes) else _GAP for key, codes in listed.items()}
        slots.append(_looked_up(f, characters, {k: v for k, v in there.items() if v != unlisted}, unlisted))
    if not in_ascii:
        unknown = f.node("Equal", slots[0], np.int64(_UNLISTED))
        slots[0] = f.node("Where", unknown, _kinds(f, characters) if alphabet.words else np.int64(OTHER), slots[0])
    if len(slots) == 1 and not in_ascii and all(listed.values()):
        return slots[0]
    return without(f, interleaved(f, slots), np.int64(_GAP))


def _looked_up(f: Formula, texts: str, table: dict[str, int], otherwise: int) -> str:
    settings: dict[str, Any] = {"keys_strings": list(table), "values_int64s": list(table.values())}
    return f.node("LabelEncoder", texts, op_domain="ai.onnx.ml", op_version=2, default_int64=otherwise, **settings)


def _kinds(f: Formula, characters: str) -> str:
    """Return `OTHER` for characters of words and `SEPARATOR` for those between them, [N, L]."""
    found = f.node(
        "Tokenizer", characters, op_domain="com.microsoft", op_version=1,
        mark=0, tokenexp=_WORDS, pad_value="#", mincharnum=1,
    )  # fmt: skip
    typed = f.node("Where", np.array([False]), np.array(["#"]), found)  # onnx infers none for a Tokenizer
    return f.node("Squeeze", _looked_up(f, typed, {"#": SEPARATOR}, OTHER), np.array([2]))


def interleaved(f: Formula, slots: list[str]) -> str:
    """Return several [N, L] as one [N, slots L]: the first of each, then the second of each."""
    if len(slots) == 1:
        return slots[0]
    apart = f.node("Concat", *(f.node("Unsqueeze", slot, np.array([2])) for slot in slots), axis=2)
    rows = f.node("Slice", f.node("Shape", apart), np.array([0]), np.array([1]))
    size = f.node("ReduceProd", f.node("Slice", f.node("Shape", apart), np.array([1]), np.array([3])), keepdims=1)
    return f.node("Reshape", apart, f.node("Concat", rows, size, axis=0))


def without(f: Formula, codes: str, gap: Any) -> str:
    """Return the rows without what equals `gap`, moved together; separators fill them up to the longest as it was."""
    kept = f.node("Not", f.node("Equal", codes, gap))
    places = f.node("Sub", f.node("CumSum", f.node("Cast", kept, to=TensorProto.INT64), np.array(1)), np.int64(1))
    width = f.node("Slice", f.node("Shape", codes), np.array([1]), np.array([2]))
    targets = f.node("Where", kept, places, width)  # what goes is written behind the end, which is cut off
    empty = f.node("Mul", codes, np.int64(0))
    longer = f.node("Concat", empty, f.columns(empty, [0]), axis=1)
    filled = f.node("ScatterElements", longer, targets, codes, axis=1)
    return f.node("Slice", filled, np.array([0]), width, np.array([1]))


def shifted(f: Formula, codes: str, by: int, edge: int) -> str:
    """Return each row moved by one to the right (1) or left (-1), with `edge` where nothing was."""
    side = f.node("Add", f.node("Mul", f.columns(codes, [0]), np.int64(0)), np.int64(edge))
    if by > 0:
        return f.node("Concat", side, f.node("Slice", codes, np.array([0]), np.array([-1]), np.array([1])), axis=1)
    end = np.array([np.iinfo(np.int64).max])
    return f.node("Concat", f.node("Slice", codes, np.array([1]), end, np.array([1])), side, axis=1)
