"""Digests of wide tensors (images, embeddings): which there are, fitted to a sample or told of first rows.

Owns the choice: of images what lens or lamp change, of all others the size, and of both some projections. A sample at
hand gives principal components; first rows on devices never do, since the directions and means of a device's embeddings
or pictures come near to telling what it saw. Projections on random signs are the same for a seed everywhere, so nothing
needs to be told but how their values are distributed. Leaves the formulas to `derivation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from shoal_protocol.canonical import rounded
from shoal_protocol.profile.derivation import TensorDigest, entries_of, whole_numbers
from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import Stream

Array = npt.NDArray[Any]
Shape = Sequence[int | None]

SIZE = "size"
"""Name of what first rows tell beside the digests: how large entries are, so that all devices round alike."""

_PRINCIPAL, _RANDOM = 4, 4
_MOST_PRINCIPAL_WIDTH = 1024
_FEWEST_ROWS = 50
_LARGEST_WEIGHT = 16383
_LEVELS_PER_SD = 512
_LARGEST_LEVEL = 8192
_MOST_SCALES = 4
_MOST_SCALE = 1e25


def sample_digests(prefix: str, kind: Literal["input", "output"], tensor: str, values: Array) -> list[Stream]:
    """Return the digests of a tensor of which there is a sample; their grids are still to be fitted.

    Args:
        prefix: Of their names.
        kind: Of the streams.
        tensor: Its name.
        values: The sample, rows first.
    """
    channels = channels_of(values.shape)
    params = _params(_scale(values), channels)
    principal = _principal(values, params)
    random = _random(whole_numbers(values[:1], params).size if len(values) else 1, 2 * _RANDOM - len(principal))
    raw = Stream(prefix, kind, NumericGrid(0.0, 1.0), tensor)
    return _digests(raw, values.shape, params, [*principal, *random])


def first_digests(
    prefix: str, kind: Literal["input", "output"], tensor: str, shape: Shape, *, scale: float = 1.0
) -> list[Stream]:
    """Return the digests of a tensor of which there is no sample; their grids are still to be fitted.

    Args:
        prefix: Of their names.
        kind: Of the streams.
        tensor: Its name.
        shape: Of the tensor, rows first; only the sides of an image may be unknown, see `is_digestible`.
        scale: What entries are multiplied by before they are rounded.
    """
    channels = channels_of(shape)
    params = _params(scale, channels)
    likely = np.zeros([1, *(size or 1 for size in shape[1:])])
    random = _random(whole_numbers(likely, params).size, 2 * _RANDOM)
    return _digests(Stream(prefix, kind, NumericGrid(0.0, 1.0), tensor), shape, params, random)


def is_digestible(shape: Shape) -> bool:
    """Tell whether digests of a tensor's rows can be compared: of one size, but for the sides of images."""
    return len(shape) > 1 and (None not in shape[1:] or channels_of(shape) is not None)


class FirstDigests:
    """Computes the digests of first rows, before anybody knows how large entries are: each call rounds for itself.

    Args:
        shape: Of the tensor, rows first.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = tuple(shape)
        self._channels = channels_of(shape)
        self.names = (*(stream.name for stream in first_digests("", "input", "", shape)), SIZE)
        """Of the columns that a call gives."""
        self._by_scale: dict[float, TensorDigest] = {}  # each keeps its random signs

    def __call__(self, values: Array) -> Array:
        """Return the digests of rows, and how large their entries are; NaN: all are zero.

        Args:
            values: The tensor, rows first.

        Returns:
            float64 of shape (rows, names).
        """
        size = _entry_size(entries_of(values, self._channels))
        digested = self._digest(2.0 ** -math.ceil(math.log2(size)) if size else 1.0)(values)
        return np.column_stack([digested, np.full(len(values), size or np.nan)])

    def _digest(self, scale: float) -> TensorDigest:
        if scale not in self._by_scale:
            if len(self._by_scale) == _MOST_SCALES:
                self._by_scale.clear()
            streams = first_digests("", "input", "", self._shape, scale=scale)
            self._by_scale[scale] = TensorDigest([(stream.derive, stream.params) for stream in streams])
        return self._by_scale[scale]


def scale_for(sizes: Array) -> float:
    """Return the scale for all devices from the sizes that first rows told: large enough entries are not cut off.

    Args:
        sizes: Of calls, pooled; NaN: unknown.
    """
    known = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not known.size:
        return 1.0
    return rounded(min(max(1 / float(np.quantile(known, 0.9)), 1 / _MOST_SCALE), _MOST_SCALE))


def channels_of(shape: Shape) -> int | None:
    """Return the axis of an image's channels, not counting the one of rows; none: this is no image."""
    if len(shape) != 4:
        return None
    return next((axis for axis in (0, 2) if shape[axis + 1] in {1, 3, 4}), None)


def _params(scale: float, channels: int | None) -> dict[str, Any]:
    return {"scale": scale} if channels is None else {"scale": scale, "channels": channels}


def _digests(
    raw: Stream, shape: Shape, params: Mapping[str, Any], projections: Sequence[Mapping[str, Any]]
) -> list[Stream]:
    """Return the digests of a tensor.

    Args:
        raw: A stream of it, whose name is the prefix of theirs.
        shape: Of the tensor, rows first.
        params: That all of them have.
        projections: What each projection has beside them.
    """
    channels = params.get("channels")
    kinds: list[tuple[str, str, Mapping[str, Any]]] = [("norm", "norm", {})]
    if channels is not None:
        number = shape[channels + 1] or 0
        kinds = [("brightness", "mean", {}), ("contrast", "spread", {}), ("sharpness", "sharpness", {})]
        kinds += [(f"channel {at + 1}", "channel", {"channel": at}) for at in range(number if number > 1 else 0)]
    kinds += [(f"projection {at}", "projection", more) for at, more in enumerate(projections, start=1)]
    return [
        replace(raw, name=f"{raw.name}{name}", derive=derive, params={**params, **more}) for name, derive, more in kinds
    ]


def _scale(values: Array) -> float:
    """Return what entries are multiplied by before they are rounded: 512 levels a standard deviation, if they fit."""
    size = _entry_size(values)
    return rounded(1 / size) if size else 1.0


def _entry_size(entries: Array) -> float:
    """Return the size of the step between levels that suits entries; 0: they are all zero, or as good as."""
    finite = entries[np.isfinite(entries)].astype(np.float64)
    if not finite.size:
        return 0.0
    spread, largest = float(finite.std()), float(np.quantile(np.abs(finite), 0.999))
    return max((size / level for level, size in ((_LEVELS_PER_SD, spread), (_LARGEST_LEVEL, largest)) if size > 1e-20),
               default=0.0)  # fmt: skip


def _principal(values: Array, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return parameters of projections on principal components, where a sample shows them."""
    q = whole_numbers(values, params)
    flat = q.reshape(len(q), -1)
    width = flat.shape[1]
    if width > _MOST_PRINCIPAL_WIDTH or len(flat) < _FEWEST_ROWS:
        return []
    principal: list[dict[str, Any]] = []
    centred = flat[:: max(1, len(flat) // 2048)]
    centred = centred - centred.mean(axis=0)
    for axis in np.linalg.svd(centred, full_matrices=False)[2][: min(_PRINCIPAL, width)]:
        scaled = axis / axis[np.argmax(np.abs(axis))] * _LARGEST_WEIGHT
        weights = np.rint(scaled).astype(int)
        principal.append({"weights": weights.tolist(), "divisor": rounded(float(np.linalg.norm(weights)))})
    return principal


def _random(width: int, number: int) -> list[dict[str, Any]]:
    """Return parameters of projections on random signs."""
    return [{"seed": at, "divisor": rounded(math.sqrt(max(1, width)))} for at in range(1, number + 1)]
