"""The same inputs give the same digest, in other processes, folders and under other hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from shoal_converter import Bundle, pack

SCRIPT = """
import sys
import numpy as np, pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import StackingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from shoal_converter import pack

frame, y = load_iris(return_X_y=True, as_frame=True)
frame = frame.assign(site=np.array(["bern", "zug", "chur"])[np.arange(150) % 3])
columns = make_column_transformer((StandardScaler(), list(frame.columns[:4])), (OneHotEncoder(), ["site"]))
inner = StackingClassifier(
    [
        ("f", RandomForestClassifier(5, random_state=0)),
        ("n", GaussianNB()),
    ],
    final_estimator=LogisticRegression(),
)
bundle = pack(make_pipeline(columns, inner).fit(frame, y), sample=frame, y=y, tag="iris:1.0.0", output=sys.argv[1])
print(bundle.digest)
"""


def packed(folder: Path, seed: str) -> str:
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C" if seed == "1" else "C.UTF-8"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder / "iris.tar")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_processes_with_other_seeds_folders_and_locales_give_one_digest(tmp_path: Path) -> None:
    first, second = packed(tmp_path / "one", "1"), packed(tmp_path / "two", "2")
    assert first == second
    assert Bundle.open(tmp_path / "one" / "iris.tar").digest == first


def test_another_sample_model_or_version_is_another_digest() -> None:
    rows, labels = load_iris(return_X_y=True)
    forest = RandomForestClassifier(3, random_state=0).fit(rows, labels)
    other = RandomForestClassifier(3, random_state=1).fit(rows, labels)
    digests = {
        pack(forest, sample=rows, tag="iris:1.0.0").digest,
        pack(forest, sample=rows, tag="iris:1.0.1").digest,
        pack(forest, sample=rows[::2], tag="iris:1.0.0").digest,
        pack(other, sample=rows, tag="iris:1.0.0").digest,
    }
    assert len(digests) == 4
    assert pack(forest, sample=rows.copy(), tag="iris:1.0.0").digest in digests


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_what_is_written_is_the_same_every_time(bundle: Bundle, tmp_path: Path, form: str) -> None:
    paths = [tmp_path / f"{name}{'.tar' if form == 'tar' else ''}" for name in ("a", "b")]
    for path in paths:
        bundle.write(path)
    first, second = (
        {
            str(p.relative_to(path)): p.read_bytes()
            for p in ([path] if path.is_file() else path.rglob("*"))
            if p.is_file()
        }
        for path in paths
    )
    assert list(first.values()) == list(second.values())
    assert [Bundle.open(path).digest for path in paths] == [bundle.digest] * 2


def test_order_of_columns_in_memory_does_not_count() -> None:
    rows, labels = load_iris(return_X_y=True)
    model = RandomForestClassifier(3, random_state=0).fit(rows, labels)
    fortran = np.asfortranarray(rows)
    assert pack(model, sample=rows, tag="iris:1.0.0").digest == pack(model, sample=fortran, tag="iris:1.0.0").digest
