# ruff: noqa: A005, E402 - named after what it measures; imports follow the path that they need
"""Profiles: counting rows, bytes of a report, merging a fleet, judging it, against the raw numpy of the same work.

Twenty float32 features with 1 % missing values. The floor of counting is the least that numpy can do with a block of
rows (subtract, multiply, clip, cast, bincount, in place, no missing values looked for); of merging, one addition over
arrays that already lie together.

The same rows go to whylogs and Apache DataSketches (KLL, k = 200), each in an environment of its own: see
`profile_peers`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE] + [str(HERE)]

import numpy as np
import numpy.typing as npt

from frame import Row, compared, paired, run
from profile_peers import peer_rows
from shoal_agent.runtime.block_counter import Coder
from shoal_agent.runtime.observer import Observer
from shoal_protocol.bundle.schema import FieldSpec
from shoal_protocol.profile.codec import decode_counts, encode_counts
from shoal_protocol.profile.grid import CELLS, NumericGrid, fit_numeric
from shoal_protocol.profile.joint_fitting import joint_streams
from shoal_protocol.profile.profile import Profile, ProfileSpec, Stream, merge, summarise
from shoal_protocol.profile.streams import input_streams
from shoal_server.drift.monitor import Bucket, observe
from shoal_server.drift.monitor_state import MonitorState
from shoal_server.drift.rules import Rules
from shoal_server.drift.watch import Yardstick
from shoal_server.testing.drift_fleet import SimulatedFleet, training_reference

FEATURES, BLOCK, DEVICES = 20, 1024, 1000
ALL_COUNTED_NS = 10**12
"""A call that took this long may cost the counting of all its rows."""

Block = npt.NDArray[np.float32]


def rows_of(random: np.random.Generator, count: int) -> Block:
    values = random.normal(size=(count, FEATURES)).astype(np.float32)
    values[random.random(values.shape) < 0.01] = np.nan
    return values


class RawBlock:
    """The floor: a block of clean rows into fine cells, nothing else."""

    def __init__(self, spec: ProfileSpec, block: Block) -> None:
        self.block = np.nan_to_num(block)
        grids = [stream.grid for stream in spec.streams if isinstance(stream.grid, NumericGrid)]
        self.origin = np.array([grid.origin for grid in grids], np.float32)
        self.step = np.array([grid.inverse_step for grid in grids], np.float32)
        self.offsets = np.arange(FEATURES, dtype=np.int32) * CELLS
        self.space = np.empty_like(self.block)

    def count(self) -> npt.NDArray[np.int64]:
        space = self.space
        np.subtract(self.block, self.origin, out=space)
        np.multiply(space, self.step, out=space)
        np.clip(space, 1, CELLS - 1, out=space)
        return np.bincount((space.astype(np.int32) + self.offsets).ravel(), minlength=FEATURES * CELLS)


def counting(spec: ProfileSpec, block: Block) -> Iterator[Row]:
    raw = RawBlock(spec, block)
    observer = Observer(spec)
    layout = observer.layout_for([block])
    rows = [bytes(row.tobytes()).ljust(layout.row_bytes, b"\0") for row in block]

    def one_by_one() -> None:
        for row in rows:
            observer.answered_row(row, 1000)

    def in_blocks() -> None:
        observer.answered([block], BLOCK, ALL_COUNTED_NS)

    def per_row(seconds: float) -> float:
        return seconds / BLOCK * 1e6

    for name, call, repeats, most in (
        ("observer, rows of one prediction", one_by_one, 40, 0.3),
        ("observer, a block of 1024 rows", in_blocks, 40, 0.1),
        ("summarise, the reference implementation", lambda: summarise(spec, {"x": block}), 15, None),
    ):
        pair = paired(call, raw.count, repeats)
        value = per_row(pair.a_s)
        yield Row(
            f"count: {name}",
            value,
            "us/row",
            per_row(pair.b_s),
            pair.ratio,
            None if most is None else f"<= {most:g} us/row",
            None if most is None else value <= most,
        )


def reports(spec: ProfileSpec, random: np.random.Generator) -> Iterator[Row]:
    for count, most in ((1000, 35), (100_000, 60)):
        profile = summarise(spec, {"x": rows_of(random, count)})
        coded = encode_counts(profile.cells, profile.moments)
        raw = profile.cells.nbytes + profile.moments.nbytes
        size = len(coded) / FEATURES
        yield Row(
            f"report of {count:,} rows",
            size,
            "B/feature",
            raw / FEATURES,
            size * FEATURES / raw,
            f"<= {most} B/feature",
            size <= most,
        )
        decoding = paired(lambda coded=coded: decode_counts(coded), lambda raw=profile: raw.cells.copy(), 30, loops=20)
        coding = paired(
            lambda it=profile: encode_counts(it.cells, it.moments), lambda raw=profile: raw.cells.copy(), 30, loops=20
        )
        yield Row(f"encode {count:,} rows", coding.a_s * 1e6, "us")
        yield Row(f"decode {count:,} rows", decoding.a_s * 1e6, "us")


def merging(spec: ProfileSpec, random: np.random.Generator) -> Iterator[Row]:
    profiles = [summarise(spec, {"x": rows_of(random, 50)}) for _ in range(DEVICES)]
    together = np.array([profile.cells for profile in profiles])
    pair = paired(lambda: merge(profiles), lambda: np.add.reduce(together), 30)
    yield Row(
        f"merge {DEVICES:,} devices x {FEATURES} features",
        pair.a_s * 1e3,
        "ms",
        pair.b_s * 1e3,
        pair.ratio,
        "<= 20 ms",
        pair.a_s <= 0.02,
    )
    shuffled = [profiles[at] for at in random.permutation(DEVICES)]
    whole = merge(profiles)
    halves = reduce(Profile.__add__, (merge(shuffled[:300]), merge(shuffled[300:])))
    yield compared("merge in another order, differing counts", _differing(whole, halves), "counts", at_most=0)


def judging() -> Iterator[Row]:
    """One bucket of a small fleet through views of all three levels, after its baseline."""
    reference = training_reference(copies=11)
    fleet = SimulatedFleet(reference=reference)
    yardstick = Yardstick.of(reference)
    rules, state = Rules(), MonitorState.empty(yardstick.layout.streams)

    def bucket(index: int, cells: Any) -> Bucket:
        return Bucket(
            index=index,
            devices=fleet.names,
            cells=cells,
            rows=np.full(fleet.devices, fleet.rows),
            cohorts=fleet.cohorts,
            excluded=np.zeros((fleet.devices, yardstick.layout.streams), dtype=np.bool_),
        )

    for index in range(rules.baseline_windows + 2):
        state = observe(state, bucket(index, fleet.window()), basis=yardstick.basis, rules=rules)
    last = bucket(99, fleet.window())
    pair = paired(lambda: observe(state, last, basis=yardstick.basis, rules=rules), lambda: last.cells.sum(axis=0), 30)
    streams = yardstick.layout.streams
    yield compared(f"judge a bucket, {fleet.devices} devices x {streams} streams", pair.a_s * 1e3, "ms", at_most=50)


def kinds(spec: ProfileSpec, training: Block, random: np.random.Generator) -> Iterator[Row]:
    """What other kinds cost a row: joint features in blocks, and digests of one call with one row."""
    joint = ProfileSpec((*spec.streams, *joint_streams(spec.streams, {"x": training})))
    block, plain, both = rows_of(random, BLOCK), Observer(spec), Observer(joint)
    pair = paired(
        lambda: both.answered([block], BLOCK, ALL_COUNTED_NS),
        lambda: plain.answered([block], BLOCK, ALL_COUNTED_NS),
        40,
    )
    scale = 1e6 / BLOCK
    yield Row(
        "count: with 6 joint features, a block", pair.a_s * scale, "us/row", pair.b_s * scale, pair.ratio,
        "<= 0.25 us/row", pair.a_s * scale <= 0.25,
    )  # fmt: skip
    texts = np.array([[" ".join(random.choice(list("abcdefgh"), 60))] for _ in range(100)], dtype=object)
    for name, values in (
        ("an embedding of 384", random.normal(size=(100, 384)).astype(np.float32)),
        ("an image of 3 x 224 x 224", random.random((100, 3, 224, 224)).astype(np.float32)),
        ("a text of 120 characters", texts),
    ):
        field = FieldSpec(name="f", dtype="string" if values.dtype.kind == "O" else "float32", tensor="f")
        coder, one = Coder(input_streams(field, values)), values[:1]
        floor = (lambda one=one: one.copy()) if one.dtype.kind != "O" else (lambda one=one: len(one[0, 0].encode()))
        pair = paired(lambda coder=coder, one=one: coder.encode(one), floor, 15, loops=10)
        yield Row(f"digest: {name}", pair.a_s * 1e6, "us/row", pair.b_s * 1e6, pair.ratio)


def rows() -> Iterator[Row]:
    random = np.random.default_rng(0)
    training = rows_of(random, 20_000)
    spec = ProfileSpec(
        tuple(Stream(f"f{at}", "input", fit_numeric(training[:, at]), "x", at) for at in range(FEATURES))
    )
    measured: dict[str, float] = {}
    for figure, step in (("row_us", counting(spec, rows_of(random, BLOCK))), ("merge_ms", merging(spec, random))):
        found = list(step)
        measured[figure] = found[0].value
        if figure == "row_us":
            measured["block_us"] = found[1].value
        yield from found
    yield from peer_rows(spec, rows_of, random, measured)
    yield from kinds(spec, training, random)
    yield from reports(spec, random)
    yield from judging()


def _differing(one: Profile, other: Profile) -> float:
    return float((one.cells != other.cells).sum() + (one.moments != other.moments).sum())


if __name__ == "__main__":
    run("profile", rows())
