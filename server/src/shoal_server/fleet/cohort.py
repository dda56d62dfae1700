"""The query language that chooses devices: ``site in (bern, basel) and arch = arm64 and not label.frozen``.

Owns the grammar, its parser and the matching of one device's facts. Leaves to `devices` which facts there are, and to
`store` which devices there are.

Grammar (``|`` separates alternatives)::

    query      = conjunction { "or" conjunction }
    conjunction = term { "and" term }
    term       = "not" term | "(" query ")" | "all" | comparison | name
    comparison = name ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~") value
               | name ["not"] "in" "(" value { "," value } ")"

A bare name asks whether the device has that label or fact. A fact that a device does not have equals nothing: ``=``,
``in``, ``~`` and the orderings are false for it, ``!=`` and ``not in`` are true. ``~`` compares with a pattern of
``*`` and ``?``. The orderings compare digits as numbers, so that ``agent >= 0.10`` is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NoReturn, TypeAlias

from shoal_protocol.errors import CallerError

MAX_QUERY_CHARACTERS = 4096
_MAX_DEPTH = 40

Facts: TypeAlias = Mapping[str, str]
_Test: TypeAlias = Callable[[Facts], bool]
_Ordered: TypeAlias = tuple[tuple[int, int, str], ...]
_Ordering: TypeAlias = Callable[[_Ordered, _Ordered], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<symbol><=|>=|!=|[=<>~(),])
      | (?P<word>[A-Za-z0-9_.*?:/@+-]+)
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "all"})
_ORDERINGS: Mapping[str, _Ordering] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class CohortError(CallerError):
    """A query does not follow the grammar; `data["position"]` counts characters from 1."""

    code = "cohort"


@dataclass(frozen=True)
class Cohort:
    """A parsed query; equal when the text is equal."""

    text: str
    _test: _Test = field(repr=False, compare=False)

    def matches(self, facts: Facts) -> bool:
        """Tell whether a device with these facts is in the cohort."""
        return self._test(facts)

    def __str__(self) -> str:
        return self.text


def parse_cohort(text: str) -> Cohort:
    """Parse a query.

    >>> parse_cohort("site in (bern, basel) and not label.frozen").matches({"site": "bern"})
    True

    Raises:
        CohortError: It does not follow the grammar; the message names the position.
    """
    return Cohort(" ".join(text.split()), _Parser(text).parse())


@dataclass(frozen=True)
class _Token:
    kind: str  # "word", "string", "symbol", "keyword" or "end"
    text: str
    position: int


class _Parser:
    """Recursive descent over the tokens; each rule returns a predicate."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_QUERY_CHARACTERS:
            raise CohortError(f"a cohort query has at most {MAX_QUERY_CHARACTERS} characters, this has {len(text)}")
        self._tokens = self._tokenise()
        self._next = 0
        self._depth = 0

    def parse(self) -> _Test:
        test = self._query()
        if self._peek.kind != "end":
            self._fail("'and', 'or' or the end")
        return test

    def _tokenise(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._error(f"{self._text[at]!r} has no meaning here", at)
            kind, word = match.lastgroup, match[match.lastgroup]
            if kind == "word" and word in _KEYWORDS:
                kind = "keyword"
            if kind == "string":
                word = re.sub(r"\\(.)", r"\1", word[1:-1])
            tokens.append(_Token(kind, word, match.start(match.lastgroup)))
            at = match.end()
        return [*tokens, _Token("end", "", len(self._text))]

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, kind: str, text: str) -> bool:
        token = self._peek
        if token.kind == kind and token.text == text:
            self._next += 1
            return True
        return False

    def _query(self) -> _Test:
        tests = [self._conjunction()]
        while self._take("keyword", "or"):
            tests.append(self._conjunction())
        return tests[0] if len(tests) == 1 else lambda facts: any(test(facts) for test in tests)

    def _conjunction(self) -> _Test:
        tests = [self._term()]
        while self._take("keyword", "and"):
            tests.append(self._term())
        return tests[0] if len(tests) == 1 else lambda facts: all(test(facts) for test in tests)

    def _term(self) -> _Test:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH}", self._peek.position)
        try:
            if self._take("keyword", "not"):
                inner = self._term()
                return lambda facts: not inner(facts)
            if self._take("symbol", "("):
                inner = self._query()
                self._expect(")")
                return inner
            if self._take("keyword", "all"):
                return lambda _facts: True
            return self._comparison(self._name())
        finally:
            self._depth -= 1

    def _comparison(self, name: str) -> _Test:
        if self._take("symbol", "="):
            value = self._value()
            return lambda facts: facts.get(name) == value
        if self._take("symbol", "!="):
            value = self._value()
            return lambda facts: facts.get(name) != value
        if self._take("symbol", "~"):
            value = self._value()
            return lambda facts: name in facts and fnmatchcase(facts[name], value)
        for symbol, holds in _ORDERINGS.items():
            if self._take("symbol", symbol):
                return _ordering(name, holds, _ordered(self._value()))
        if self._take("keyword", "in"):
            values = self._values()
            return lambda facts: facts.get(name) in values
        if self._take("keyword", "not"):
            if not self._take("keyword", "in"):
                self._fail("'in' after 'not'")
            values = self._values()
            return lambda facts: facts.get(name) not in values
        return lambda facts: name in facts

    def _name(self) -> str:
        token = self._peek
        if token.kind != "word":
            self._fail("the name of a label or fact")
        self._next += 1
        return token.text

    def _value(self) -> str:
        token = self._peek
        if token.kind not in {"word", "string"}:
            self._fail("a value (quote it if it is a word of the language)")
        self._next += 1
        return token.text

    def _values(self) -> frozenset[str]:
        self._expect("(")
        values = [self._value()]
        while self._take("symbol", ","):
            values.append(self._value())
        if not self._take("symbol", ")"):
            self._fail("',' or ')'")
        return frozenset(values)

    def _expect(self, symbol: str) -> None:
        if not self._take("symbol", symbol):
            self._fail(f"'{symbol}'")

    def _fail(self, expected: str) -> NoReturn:
        token = self._peek
        got = "the end" if token.kind == "end" else repr(token.text)
        raise self._error(f"expected {expected}, got {got}", token.position)

    def _error(self, problem: str, at: int) -> CohortError:
        return CohortError(
            f"cohort query, position {at + 1}: {problem}: {self._text[:at]}»{self._text[at:]}",
            hint="for example: site in (bern, basel) and arch = arm64 and not label.frozen",
            position=at + 1,
        )


def _ordering(name: str, holds: _Ordering, bound: _Ordered) -> _Test:
    return lambda facts: name in facts and holds(_ordered(facts[name]), bound)


def _ordered(value: str) -> _Ordered:
    """Split into runs of digits, compared as numbers, and other text, compared as text."""
    parts = re.findall(r"\d+|[^\d.]+", value)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
