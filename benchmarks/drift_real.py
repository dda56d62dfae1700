# ruff: noqa: E402 - imports follow the path that they need
"""Real drifts: data sets split by time or condition, and the same ones split at random, where nothing drifts.

What scikit-learn ships, and what the package river ships (in an environment of its own): digits of other writers, polls
later in the year, the flow of a water main half a year on, a shuttle's sensors later in its flight. Each is split into
reference and current by its own order, then ``--splits`` times at random.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np
import numpy.typing as npt
from sklearn import datasets

from frame import Row, options, run
from peers import PeerMissingError, ask
from shoal_server.statistics.samples import Column, Verdict, compare
from shoal_server.testing.gas_array import COLUMNS, GASES, GasArray

Numbers = npt.NDArray[np.float64]
Table = dict[str, Column]
MOST_FALSE = 0.03
_RIVER = """
import json, sys
import numpy as np
from river import datasets
found = {}
for name in ("WaterFlow", "TrumpApproval", "Shuttle"):
    pairs = list(getattr(datasets, name)().take(40000))
    keys = [key for key, value in pairs[0][0].items() if isinstance(value, (int, float)) and key != "ordinal_date"]
    rows = [[float(x[key]) for key in keys] + [float(y)] for x, y in pairs]
    found[name] = np.array(rows)
np.savez(sys.argv[1], **found)
print(json.dumps("done"))
"""


def worlds() -> Iterator[tuple[str, Table, npt.NDArray[np.bool_], bool, str]]:
    """Yield name, columns, which rows are the current ones, whether they follow in time, and a column to be given."""
    digits = datasets.load_digits()
    later = np.arange(len(digits.data)) >= len(digits.data) // 2
    yield "digits, other writers", _table(digits.data), later, False, ""
    diabetes = datasets.load_diabetes(scaled=False)
    table = _table(diabetes.data[:, [0, *range(2, 10)]])
    yield "diabetes, men and women", table, diabetes.data[:, 1] > 1, False, ""
    cancer = datasets.load_breast_cancer()
    yield "breast cancer, smaller and larger tumours", _table(cancer.data[:, 1:]), cancer.data[:, 0] > 13.4, False, ""
    array = GasArray(seed=3)
    for batch in (1, 5, 9):
        (before, gas0), (now, gas1) = array.batch(0), array.batch(batch)
        table = {name: np.concatenate([before, now])[:, at].astype(np.float64) for at, name in enumerate(COLUMNS)}
        table["gas"] = np.array([GASES[one] for one in (*gas0, *gas1)], dtype=object)
        name = f"gas sensors (made), batch {batch + 1} against 1"
        yield name, table, np.arange(len(table["gas"])) >= len(gas0), False, "gas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "river.npz"
        try:
            ask("river", _RIVER, str(path))
        except PeerMissingError as error:
            print(f"  {error}; its data sets are left out", file=sys.stderr)
            return
        loaded = np.load(path)
        for name, told in (("WaterFlow", "water flow"), ("TrumpApproval", "polls"), ("Shuttle", "shuttle")):
            rows = loaded[name]
            later = np.arange(len(rows)) >= len(rows) // 2
            yield f"{told}, later in time", _table(rows), later, False, ""
            yield f"{told}, --time-ordered", _table(rows), later, True, ""


def rows(*, splits: int, seed: int) -> Iterator[Row]:
    random = np.random.default_rng(seed)
    false = judged = 0
    for name, table, current, timed, given in worlds():
        found = compare(_part(table, ~current), _part(table, current), time_ordered=timed, given=given)
        drifting = [one for one in found.features if one.verdict is Verdict.DRIFT]
        first = f", most {drifting[0].name}: {drifting[0].cause}" if drifting else ""
        explained = sum(one.explained for one in drifting)
        mix = f", {explained} of them by the mix of {given}" if given else ""
        size = f"{int((~current).sum()):,} and {int(current.sum()):,} rows"
        yield Row(f"{name} ({size}): {found.verdict}{mix}{first:.90}", len(drifting) / len(table), "of features")
        if given or timed:
            continue  # at random its two batches are one, and rows in no order resemble no neighbours
        for _ in range(splits):
            half = random.permutation(len(current)) % 2 == 0
            false += compare(_part(table, ~half), _part(table, half)).verdict is Verdict.DRIFT
            judged += 1
    yield Row(
        f"the same, halves at random: drift, of {judged:,}", false / judged, "", None, None,
        f"<= {MOST_FALSE:g}", false <= MOST_FALSE * judged,
    )  # fmt: skip


def _table(rows: Numbers) -> Table:
    return {f"x{at}": np.asarray(rows[:, at], np.float64) for at in range(rows.shape[1])}


def _part(table: Table, chosen: npt.NDArray[np.bool_]) -> Table:
    return {name: column[chosen] for name, column in table.items()}


if __name__ == "__main__":
    said = options(splits=20)
    run("drift_real", rows(splits=said.splits, seed=said.seed))
