"""What a stream counts, where that is not a number as it stands in a tensor: the derivations, one value a row each.

Owns their formulas, which device and converter share: whatever looks at a whole tensor or at text is computed here on
both sides, so that both count alike. Leaves grids to `grid`, the joint features over several streams to `joint`.

Invariants: no derivation keeps or sends anything of a row; the cost of a row is bounded, since of large tensors a grid
of at most `MOST_ENTRIES` entries and of long texts the beginning is looked at. Tensors are first rounded to whole
numbers, whose sums are exact in float64 in any order: so the value of a row is the same on every machine, in any batch.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Params: TypeAlias = Mapping[str, Any]

PLAIN = frozenset({"value", "row_max"})
"""Read off one or a few columns, while a block is counted."""

TIMES = frozenset({"hour", "weekday"})
"""Read off one column of points in time; parameter ``per_s``: its unit, as parts of a second."""

TENSORS = frozenset({"norm", "mean", "spread", "sharpness", "channel", "projection"})
"""Of a whole tensor. Parameters: ``scale`` (entries are multiplied by it and rounded), for images ``channels`` (the
axis of the channels without the one of rows) and ``channel`` (its number), for projections ``weights``, or ``seed``."""

TEXTS = frozenset({"length", "letters", "digits", "non_ascii", "unknown_tokens"})
"""Of a text; ``unknown_tokens`` has the parameter ``sketch``, from `vocabulary_sketch`."""

JOINT = "joint"
"""Of several streams: see `joint`."""

KNOWN = PLAIN | TIMES | TENSORS | TEXTS | {JOINT}
"""All derivations of this version; a stream with another one is left uncounted."""

MOST_ENTRIES = 4096
MOST_TEXT = 2000
_LARGEST = 16383.0
_SIDE = 32
_SKETCH_BITS = 1 << 14
_WORDS = r"[^\W⺀-￿]+|[⺀-￿]"
"""East Asian scripts have no spaces: a sign is a token. Compiled when texts come: the wide range costs 5 ms."""


def looks_at_whole(derive: str) -> bool:
    """Tell whether a derivation needs a row's whole tensor or text at once."""
    return derive in TENSORS or derive in TEXTS


def point_in_time(derive: str, values: Values, params: Params) -> Floats:
    """Return the hour (0 to 23) or the weekday (0 is Monday) of points in time since 1970 in UTC; NaN: missing.

    Args:
        derive: One of `TIMES`.
        values: Shape (rows,).
        params: ``per_s``.
    """
    per_s = int(params["per_s"])
    if values.dtype.kind in "iu":
        seconds = (values // per_s).astype(np.float64)
    else:
        wide = values.astype(np.float64)
        seconds = np.where(np.isfinite(wide), wide, np.nan) / per_s
    if derive == "hour":
        return np.asarray(np.floor(np.mod(seconds, 86_400) / 3600))
    return np.asarray(np.mod(np.floor(seconds / 86_400) + 3, 7))  # 1970-01-01 was a Thursday


class TensorDigest:
    """Computes several derivations of one tensor, sharing what they have in common.

    Args:
        wanted: (derivation, parameters), all of `TENSORS`.
    """

    def __init__(self, wanted: Sequence[tuple[str, Params]]) -> None:
        self._wanted = list(wanted)
        self._weights: dict[int, Floats] = {}

    def __call__(self, values: Values) -> Floats:
        """Return the derived values, shape (rows, derivations).

        Args:
            values: The tensor, rows first.
        """
        rounded: dict[tuple[Any, ...], Floats] = {}
        out = np.empty((len(values), len(self._wanted)))
        for at, (derive, params) in enumerate(self._wanted):
            key = (params["scale"], params.get("channels"), derive == "sharpness")
            if key not in rounded:
                rounded[key] = whole_numbers(values, params, steps=derive == "sharpness")
            out[:, at] = self._of(at, derive, params, rounded[key])
        return out

    def _of(self, at: int, derive: str, params: Params, q: Floats) -> Floats:
        scale = float(params["scale"])
        if derive == "projection":
            flat = q.reshape(len(q), -1)
            if at not in self._weights:
                self._weights[at] = _weights(params, flat.shape[1])
            return np.asarray(flat @ self._weights[at] / (scale * float(params["divisor"])))
        if derive == "channel":
            axis = int(params["channels"]) % (q.ndim - 1) + 1
            q = np.take(q, [int(params["channel"])], axis=axis, mode="clip")
        flat = q.reshape(len(q), -1)
        count = max(1, flat.shape[1])
        if derive == "norm":
            return np.asarray(np.sqrt((flat * flat).sum(axis=1)) / scale)
        total = flat.sum(axis=1)
        if derive == "spread":
            return np.asarray(np.sqrt(count * (flat * flat).sum(axis=1) - total * total) / (count * scale))
        return np.asarray(total / (count * scale))


def entries_of(values: Values, channels: int | None) -> Values:
    """Return the entries of a tensor that are looked at, as they stand.

    Args:
        values: The tensor, rows first.
        channels: Of images, the axis of the channels without the one of rows.

    Returns:
        Shape (rows, entries); for images (rows and three axes).
    """
    if channels is None or values.ndim != 4:
        flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
        return flat[:, :: max(1, -(-flat.shape[1] // MOST_ENTRIES))]
    return _pixels(values, channels % 3, steps=False)[0]


def whole_numbers(values: Values, params: Params, *, steps: bool = False) -> Floats:
    """Return a grid of a tensor's entries as whole numbers, or the sizes of steps to the next one to the right.

    Args:
        values: The tensor, rows first.
        params: ``scale`` and, for images, ``channels``.
        steps: Steps instead of entries.

    Returns:
        Shape (rows, entries); for images (rows and three axes). NaN counts as 0.
    """
    channels = None if params.get("channels") is None else int(params["channels"])
    if not steps or channels is None or values.ndim != 4:
        x = _rounded(entries_of(values, channels), params)
        return np.abs(np.diff(x, axis=1)) if steps else x
    left, right = (_rounded(part, params) for part in _pixels(values, channels % 3, steps=True))
    return np.abs(right - left)


def _pixels(values: Values, channels: int, *, steps: bool) -> tuple[Values, ...]:
    """Return every so many pixels, so that each side has at most 32, and where asked their neighbours to the right."""
    height, width = [axis for axis in (1, 2, 3) if axis != channels + 1]
    every = [slice(None)] * 4
    for axis in (height, width):
        every[axis] = slice(0, None, max(1, -(-values.shape[axis] // _SIDE)))
    if not steps:
        return (values[tuple(every)],)
    step = every[width].step
    left, right = list(every), list(every)
    left[width] = slice(0, max(0, values.shape[width] - 1), step)
    right[width] = slice(1, None, step)
    return values[tuple(left)], values[tuple(right)]


def _rounded(x: Values, params: Params) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = x.astype(np.float64) * float(params["scale"])
    scaled = np.where(np.isnan(scaled), 0.0, scaled)
    return np.asarray(np.rint(np.clip(scaled, -_LARGEST, _LARGEST)))


def _weights(params: Params, width: int) -> Floats:
    """Return whole weights for as many entries: the given ones, or 1 and -1 at random by the seed."""
    given = params.get("weights")
    if given is not None:
        weights = np.zeros(width)
        weights[: len(given)] = np.asarray(given, dtype=np.float64)[:width]
        return weights
    return random_signs(int(params["seed"]), width)


def random_signs(seed: int, width: int) -> Floats:
    """Return 1 or -1 for each entry, the same for a seed everywhere and for ever.

    SplitMix64 (Steele, Lea and Flood 2014), its highest bit.
    """
    gamma = 0x9E3779B97F4A7C15
    z = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(gamma) + np.uint64(seed % 2**63 * gamma % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where((z ^ (z >> np.uint64(31))) >> np.uint64(63), 1.0, -1.0)


def text_value(derive: str, params: Params) -> Callable[[str], float]:
    """Return what computes one of `TEXTS`: the length, or a share of a text's characters or tokens (NaN: of none)."""
    if derive == "unknown_tokens":
        bits = sketch_bits(str(params["sketch"]))
        return lambda text: _unknown_share(text[:MOST_TEXT], bits)
    if derive == "length":
        return lambda text: float(len(text))
    counted = {"letters": str.isalpha, "digits": str.isdigit, "non_ascii": _is_not_ascii}[derive]

    def share(text: str) -> float:
        start = text[:MOST_TEXT]
        return sum(map(counted, start)) / len(start) if start else float("nan")

    return share


def _is_not_ascii(sign: str) -> bool:
    return not sign.isascii()


def tokens(text: str) -> list[str]:
    """Return a text's tokens: runs of letters, digits and underscores in lower case, and single East Asian signs.

    >>> tokens("Pump 7: läuft 不良")
    ['pump', '7', 'läuft', '不', '良']
    """
    return re.findall(_WORDS, text[:MOST_TEXT].lower())


def vocabulary_sketch(texts: Sequence[str], *, least: int = 1) -> str:
    """Return a Bloom filter (Bloom 1970) of the tokens of texts: 2 KiB from which no word can be read, in base64.

    With v tokens an unknown one is taken for known with probability (1 - exp(-2 v / 16384))^2: 1 % at 860, 15 % at
    4,000, which dilutes the share of unknown tokens but biases reference and fleet alike.

    Args:
        texts: The texts.
        least: Only tokens that so many of them have go into it.
    """
    bits = np.zeros(_SKETCH_BITS, dtype=np.uint8)
    seen = Counter(token for text in texts for token in set(tokens(text)))
    for token in (token for token, number in seen.items() if number >= least):
        bits[list(_places(token))] = 1
    return packed_bits(bits)


def packed_bits(bits: Values) -> str:
    """Return the sketch of a vocabulary that has these bits, one an entry."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def sketch_bits(sketch: str) -> bytes:
    """Return a sketch as one byte a bit.

    Raises:
        ValueError: It is no sketch.
    """
    try:
        raw = base64.b64decode(sketch, validate=True)
    except binascii.Error as error:
        raise ValueError("the sketch of a vocabulary is not base64") from error
    if len(raw) * 8 != _SKETCH_BITS:
        raise ValueError(f"the sketch of a vocabulary has {len(raw) * 8} bits, expected {_SKETCH_BITS}")
    return np.unpackbits(np.frombuffer(raw, np.uint8)).tobytes()


def _places(token: str) -> tuple[int, int]:
    hashed = zlib.crc32(token.encode(errors="replace"))
    return hashed % _SKETCH_BITS, (hashed >> 16) * 31 % _SKETCH_BITS


def _unknown_share(text: str, bits: bytes) -> float:
    found = tokens(text)
    if not found:
        return float("nan")
    return sum(not all(bits[place] for place in _places(token)) for token in found) / len(found)


def check_params(derive: str, params: Params) -> None:
    """Check a derivation's parameters as they come from a file; unknown derivations may have any.

    Raises:
        ValueError: One is missing, of another type or out of range.
    """
    if derive in TIMES and int(params["per_s"]) not in {1, 10**3, 10**6, 10**9}:
        raise ValueError(f"per_s is {params['per_s']!r:.40}, expected 1, 1000, 10^6 or 10^9")
    if derive in TENSORS:
        numbers = [params["scale"], params.get("divisor", 1.0) if derive != "projection" else params["divisor"]]
        if not all(np.isfinite(float(number)) and 1e-30 < float(number) < 1e30 for number in numbers):
            raise ValueError("scale and divisor must be positive")
    if derive == "channel":
        int(params["channels"])
        int(params["channel"])
    if derive == "projection":
        weights = params.get("weights")
        if weights is None:
            int(params["seed"])
        elif len(weights) > MOST_ENTRIES or any(abs(int(w)) > _LARGEST or int(w) != w for w in weights):
            raise ValueError("weights must be at most 4,096 whole numbers up to 16,383")
    if derive == "unknown_tokens":
        sketch_bits(str(params["sketch"]))
