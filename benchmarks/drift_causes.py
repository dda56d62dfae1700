# ruff: noqa: E402 - imports follow the path that they need
"""Whether the cause that `drift test` suspects is the one that was injected: a confusion table over seeded injections.

Halves of scikit-learn's data sets and of a made sensor array, split at random; one feature of one half is changed in
one of thirteen ways, or none is. Counted is what the first line of the answer says: which feature, and the word before
the colon. ``--full`` makes 120 injections of each kind, without it 30; ``--seed N`` draws others.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Behind everything else: this folder has files named like modules of the standard library.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE] + [str(HERE)]

import numpy as np
import numpy.typing as npt
from sklearn import datasets

from frame import Row, options, run
from shoal_server.statistics.causes import UNITS
from shoal_server.statistics.samples import Column, Verdict, compare
from shoal_server.testing.gas_array import COLUMNS, GasArray

Numbers = npt.NDArray[np.float64]
Injection = Callable[[np.random.Generator, Numbers], Column]
LEAST_NAMED, LEAST_PLACED, MOST_FALSE = 0.9, 0.95, 0.03
_PLAIN = [one for one in UNITS if one[1] > 0 and abs(one[1] - 1) > 0.3]


def some(random: np.random.Generator, x: Numbers, share: float, value: float | Numbers) -> Numbers:
    """Replace a share of values."""
    return np.where(random.random(x.size) < share, value, x)


def unit(random: np.random.Generator, x: Numbers) -> Numbers:
    _, factor, offset = _PLAIN[int(random.integers(len(_PLAIN)))]
    return x * factor + offset


INJECTIONS: dict[str, tuple[tuple[str, ...], Injection]] = {
    "unit change": (("unit change",), unit),
    "gain of 0.7 or 1.45": (("gain",), lambda r, x: x * r.choice([0.7, 1.45])),
    "offset of 0.8 sd": (("shift",), lambda r, x: x + 0.8 * x.std() * r.choice([-1, 1])),
    "a quarter stuck": (("stuck",), lambda r, x: some(r, x, 0.25, np.median(x) + 0.123 * x.std())),
    "wholly stuck": (("stuck",), lambda _, x: np.full(x.size, np.median(x) + 0.05 * x.std())),
    "saturated": (("saturation",), lambda _, x: np.minimum(x, np.quantile(x, 0.7))),
    "error code": (("error code",), lambda r, x: some(r, x, 0.12, float(r.choice([-9999, 65535])))),
    "missing source": (("missing source",), lambda r, x: some(r, x, float(r.choice([0.2, 1.0])), np.nan)),
    "noise of 1.2 sd": (("noise",), lambda r, x: x + 1.2 * x.std() * r.normal(size=x.size)),
    "damped to 0.5": (("damping",), lambda _, x: x.mean() + 0.5 * (x - x.mean())),
    "outliers": (("outliers",), lambda r, x: some(r, x, 0.12, x.mean() + 12 * x.std() * r.normal(size=x.size))),
    "new category": (("new category",), lambda r, x: _some_texts(r, _texts(x), "weekend")),
    "respelled category": (("new spelling",), lambda r, x: _some_texts(r, _texts(x), "Group 1")),
}
"""What is done, and the words of an answer that is right."""
TEXTS = ("new category", "respelled category")


def _texts(x: Numbers) -> Column:
    groups = np.searchsorted(np.quantile(x, [0.25, 0.5, 0.75]), x)
    return np.array([f"group_{group}" for group in groups.tolist()], dtype=object)


def _some_texts(random: np.random.Generator, texts: Column, new: str) -> Column:
    return np.array(
        [new if old == "group_1" or (new == "weekend" and hit) else old
         for old, hit in zip(texts.tolist(), random.random(len(texts)) < 0.1, strict=True)],
        dtype=object,
    )  # fmt: skip


def worlds() -> dict[str, dict[str, Numbers]]:
    """Return columns of several data sets; discrete ones have no place here."""
    found: dict[str, dict[str, Numbers]] = {}
    for name in ("breast_cancer", "diabetes"):
        loaded = getattr(datasets, f"load_{name}")
        rows = loaded(scaled=False).data if name == "diabetes" else loaded().data
        columns = {f"x{at}": rows[:, at].astype(np.float64) for at in range(rows.shape[1])}
        found[name] = {key: x for key, x in columns.items() if len(np.unique(x)) > 40}
    values, _ = GasArray(seed=5).batch(1)
    found["sensor array"] = {name: values[:, at].astype(np.float64) for at, name in enumerate(COLUMNS[::3])}
    return found


def injected(
    random: np.random.Generator, columns: dict[str, Numbers], kind: str | None
) -> tuple[str, dict[str, Column], dict[str, Column]]:
    """Return the name of the changed feature, and the halves before and after."""
    rows = len(next(iter(columns.values())))
    order = random.permutation(rows)
    parts = order[: rows // 2], order[rows // 2 :]
    before, now = ({name: x[part] for name, x in columns.items()} for part in parts)
    victim = str(random.choice(list(columns)))
    if kind is None:
        return victim, before, now
    if kind in TEXTS:
        before[victim] = _texts(before[victim])
    now[victim] = INJECTIONS[kind][1](random, now[victim])
    return victim, before, now


def rows(*, each: int, seed: int) -> Iterator[Row]:
    random = np.random.default_rng(seed)
    data = list(worlds().values())
    total = named = placed = 0
    told: dict[str, Counter[str]] = {}
    for kind, (right, _) in INJECTIONS.items():
        told[kind] = Counter()
        for at in range(each):
            victim, before, now = injected(random, data[at % len(data)], kind)
            first = compare(before, now).features[0]
            found = first.verdict is Verdict.DRIFT and first.name == victim
            word = first.cause.partition(":")[0] if found else "(not found)"
            told[kind][word] += 1
            total, placed, named = total + 1, placed + found, named + (found and word in right)
        words = ", ".join(f"{word} {count}" for word, count in told[kind].most_common())
        share = sum(told[kind][word] for word in right) / each
        yield Row(f"{kind}: {words}", share, "named right")
    quiet = 8 * each
    false = sum(
        compare(*injected(random, data[at % len(data)], None)[1:]).verdict is Verdict.DRIFT for at in range(quiet)
    )
    yield Row(
        f"the changed feature stands first, of {total:,}", placed / total, "", None, None,
        f">= {LEAST_PLACED:g}", placed >= LEAST_PLACED * total,
    )  # fmt: skip
    yield Row(
        f"its cause is named, of {total:,}", named / total, "", None, None,
        f">= {LEAST_NAMED:g}", named >= LEAST_NAMED * total,
    )  # fmt: skip
    yield Row(
        f"drift is said of equal halves, of {quiet:,}", false / quiet, "", None, None,
        f"<= {MOST_FALSE:g}", false <= MOST_FALSE * quiet,
    )  # fmt: skip


if __name__ == "__main__":
    said = options()
    run("drift_causes", rows(each=120 if said.full else 30, seed=said.seed))
