"""whylogs and Apache DataSketches on the same rows as `profile`: cost of rows, merges and reports, and exactness.

Each runs in an environment of its own (`peers`); times are the least of several repeats, in the same run as ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from frame import Row
from peers import PeerMissingError, ask
from shoal_protocol.profile.codec import encode_counts
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid, fit_categorical
from shoal_protocol.profile.profile import Profile, ProfileSpec, Stream, merge, summarise

QUANTILES = np.linspace(0.01, 0.99, 99)
DEVICES = 1000
TOP = 20
"""Of the categories whose shares are compared."""

_COMMON = """
import json, sys, time
import numpy as np
given = np.load(sys.argv[1], allow_pickle=False)
one, many, devices, texts = given["one"], given["many"], given["devices"], given["texts"]
at = np.linspace(0.01, 0.99, 99)
def least(call, repeats):
    best = 1e9
    for _ in range(repeats):
        start = time.perf_counter(); call(); best = min(best, time.perf_counter() - start)
    return best
def rank_error(quantiles_of):
    worst = 0.0
    for column in range(many.shape[1]):
        x = np.sort(many[:, column][~np.isnan(many[:, column])])
        reached = np.searchsorted(x, np.asarray(quantiles_of(column)), side="right") / x.size
        worst = max(worst, float(np.abs(reached - at).max()))
    return worst
def share_error(counts):
    names, exact = np.unique(texts, return_counts=True)
    order = np.argsort(-exact)[:20]
    return max(abs(counts.get(str(names[i]), 0.0) - exact[i]) / len(texts) for i in order)
"""
_DATASKETCHES = (
    _COMMON
    + """
import datasketches
def fresh(): return [datasketches.kll_floats_sketch(200) for _ in range(one.shape[1])]
def rows(block, sketches):
    for row in block.tolist():
        for sketch, value in zip(sketches, row):
            if value == value: sketch.update(value)
def blocks(block, sketches):
    for column, sketch in enumerate(sketches):
        x = block[:, column]; sketch.update(x[~np.isnan(x)])
    return sketches
def merged():
    whole = fresh()
    for sketches in fleet:
        for mine, theirs in zip(whole, sketches): mine.merge(theirs)
fleet = [blocks(device, fresh()) for device in devices]
large, small = blocks(many, fresh()), blocks(one, fresh())
counted = datasketches.frequent_strings_sketch(7)
for text in texts.tolist(): counted.update(text)
found = {name: estimate for name, estimate, _, _ in counted.get_frequent_items(
    datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)}
print(json.dumps({
    "row_us": 1e6 * least(lambda: rows(one[:200], fresh()), 5) / 200,
    "block_us": 1e6 * least(lambda: blocks(one, fresh()), 20) / len(one),
    "merge_ms": 1e3 * least(merged, 5),
    "bytes_1k": sum(len(s.serialize()) for s in small) / len(small),
    "bytes_100k": sum(len(s.serialize()) for s in large) / len(large),
    "rank_error": rank_error(lambda column: large[column].get_quantiles(at)),
    "share_error": share_error(found),
}))
"""
)
_WHYLOGS = (
    _COMMON
    + """
import pandas
from whylogs.core import DatasetProfile
names = [f"f{at}" for at in range(one.shape[1])]
def frame(block): return pandas.DataFrame(block, columns=names)
def rows(block):
    profile = DatasetProfile()
    for row in block: profile.track(row)
def blocks(table):
    profile = DatasetProfile(); profile.track(table); return profile
said = [dict(zip(names, row)) for row in one[:100].tolist()]
table = frame(one)
views = [blocks(frame(device)).view() for device in devices[:100]]
def merged():
    whole = views[0]
    for view in views[1:]: whole = whole.merge(view)
large, small = blocks(frame(many)).view(), blocks(table).view()
sketches = [large.get_column(name).get_metric("distribution").kll.value for name in names]
strings = DatasetProfile(); strings.track(pandas.DataFrame({"c": texts.tolist()}))
items = strings.view().get_column("c").get_metric("frequent_items").strings
print(json.dumps({
    "row_us": 1e6 * least(lambda: rows(said), 3) / len(said),
    "block_us": 1e6 * least(lambda: blocks(table), 5) / len(one),
    "merge_ms": 1e3 * least(merged, 3) * len(devices) / len(views),
    "bytes_1k": len(small.serialize()) / len(names),
    "bytes_100k": len(large.serialize()) / len(names),
    "rank_error": rank_error(lambda column: sketches[column].get_quantiles(list(at))),
    "share_error": share_error({item.value: item.est for item in items}),
}))
"""
)
FIGURES = {
    "row_us": ("count a row of one prediction", "us/row"),
    "block_us": ("count a row in blocks of 1024", "us/row"),
    "merge_ms": (f"merge {DEVICES:,} devices x 20 features", "ms"),
    "bytes_1k": ("report of 1,000 rows", "B/feature"),
    "bytes_100k": ("report of 100,000 rows", "B/feature"),
    "rank_error": ("largest rank error of 99 quantiles, 100,000 rows", "share"),
    "share_error": (f"largest error of the {TOP} most frequent of 1,000 categories", "share"),
}


def peer_rows(
    spec: ProfileSpec,
    draw: Callable[[np.random.Generator, int], npt.NDArray[np.float32]],
    random: np.random.Generator,
    ours: dict[str, float],
) -> Iterator[Row]:
    """Yield a row for each figure and peer; `ours` holds the times that `profile` has measured in this run.

    Args:
        spec: Of twenty features.
        draw: Draws rows.
        random: For it.
        ours: ``row_us``, ``block_us`` and ``merge_ms``.
    """
    one, many = draw(random, 1024), draw(random, 100_000)
    devices = np.stack([draw(random, 50) for _ in range(DEVICES)])
    texts = np.array([f"c{at:03}" for at in np.minimum(random.zipf(1.3, 100_000), 1000)])
    ours = {**ours, **_ours(spec, one[:1000], many, texts)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, one=one, many=many, devices=devices, texts=texts)
        for peer, script in (("datasketches", _DATASKETCHES), ("whylogs", _WHYLOGS)):
            try:
                found: dict[str, float] = ask(peer, script, str(path))
            except PeerMissingError as error:
                yield Row(f"{peer} is left out: {error}", float("nan"), "")
                continue
            yield from _compared(peer, ours, found)


def _compared(peer: str, ours: dict[str, float], theirs: dict[str, float]) -> Iterator[Row]:
    least = {"row_us": 1 / 1000, "block_us": 1 / 200} if peer == "whylogs" else {}
    for figure, (name, unit) in FIGURES.items():
        ratio = ours[figure] / theirs[figure] if theirs[figure] else None
        most = least.get(figure)
        target = None if most is None else f"<= 1/{round(1 / most)}x"
        ok = None if most is None or ratio is None else ratio <= most
        yield Row(f"{name}, against {peer}", ours[figure], unit, theirs[figure], ratio, target, ok)


def _ours(
    spec: ProfileSpec, few: npt.NDArray[np.float32], many: npt.NDArray[np.float32], texts: npt.NDArray[Any]
) -> dict[str, float]:
    grid = fit_categorical(texts[:10_000])
    words = ProfileSpec((Stream("c", "input", grid, "c"),))
    counted = merge([summarise(words, {"c": texts[at : at + 500]}) for at in range(0, len(texts), 500)])
    profile = summarise(spec, {"x": many})
    sizes = [len(encode_counts(p.cells, p.moments)) / len(spec.streams) for p in (summarise(spec, {"x": few}), profile)]
    return {
        "bytes_1k": sizes[0],
        "bytes_100k": sizes[1],
        "rank_error": max(_rank_error(spec, profile, many[:, at], at) for at in range(len(spec.streams))),
        "share_error": _share_error(grid, counted, texts),
    }


def _rank_error(spec: ProfileSpec, profile: Profile, values: npt.NDArray[np.float32], at: int) -> float:
    """Largest distance in rank of quantiles read off the coarse cells, by a monotone cubic between their edges."""
    grid = spec.streams[at].grid
    if not isinstance(grid, NumericGrid):
        raise TypeError("a numeric stream was expected")
    counts = profile.cells[spec.offsets[at] : spec.offsets[at + 1]]
    fine, x = grid.fine_edges(), np.sort(values[~np.isnan(values)])
    inner = counts[2:] if grid.coarse[-1] != grid.cells - 1 else counts[2:-1]
    edges = fine[[start - 2 for start in (*grid.coarse[2 : 2 + len(inner)], grid.cells - 1)]]
    upto = np.concatenate([[0], np.cumsum(inner)]) + counts[1]
    known = np.unique(upto / max(counts[1:].sum(), 1), return_index=True)
    quantiles = PchipInterpolator(known[0], edges[known[1]])(np.clip(QUANTILES, known[0][0], known[0][-1]))
    return float(np.abs(np.searchsorted(x, quantiles, side="right") / x.size - QUANTILES).max())


def _share_error(grid: CategoricalGrid, counted: Profile, texts: npt.NDArray[Any]) -> float:
    names, exact = np.unique(texts, return_counts=True)
    mine = dict(zip(grid.categories, counted.cells[2:].tolist(), strict=True))
    top = np.argsort(-exact)[:TOP]
    return float(max(abs(mine.get(str(names[at]), 0) - exact[at]) / len(texts) for at in top))
