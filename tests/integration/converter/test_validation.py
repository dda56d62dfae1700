"""Packing with data that the model has not seen: figures of it, segments, and a parity gate on it."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shoal_converter import pack
from shoal_converter.cli import run
from shoal_converter.conversion import convert
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import ParityError, SampleError
from shoal_converter.pack_options import PackOptions
from shoal_converter.sample import make_sample

RNG = np.random.default_rng(5)


def rows(n: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    x = pd.DataFrame({"temp": RNG.normal(20, 3, n), "load": RNG.uniform(0, 1, n)})
    y = np.where(x.temp + 8 * x.load + RNG.normal(0, 3, n) > 24, "bad", "good")
    return x, y, np.where(RNG.random(n) < 0.3, "bern", "basel")


def test_figures_are_of_the_data_that_the_model_has_not_seen() -> None:
    x, y, _ = rows(400)
    unseen, truth, site = rows(300)
    model = RandomForestClassifier(21, random_state=0).fit(x, y)
    options = PackOptions(validation=unseen, validation_y=truth, segments={"site": site})
    reference = pack(model, sample=x, y=y, tag="q:1", options=options).reference
    assert reference is not None
    assert reference.metrics["accuracy"] == pytest.approx(model.score(unseen, truth))
    assert reference.profile.n == 300
    assert reference.validation
    assert set(reference.sources.values()) == {"validation"}
    quality = reference.quality
    assert quality is not None
    assert quality.n == np.sum(quality.answered) == np.sum(quality.confusion) == 300
    assert np.sum(quality.correct) == np.trace(quality.confusion) == round(300 * reference.metrics["accuracy"])
    assert {part.by["site"]: part.n for part in reference.segments} == {
        "basel": int((site == "basel").sum()),
        "bern": int((site == "bern").sum()),
    }


def test_validation_rows_without_labels_give_the_profile_and_the_sample_the_figures() -> None:
    x, y, _ = rows(300)
    unseen, _, _ = rows(200)
    model = LogisticRegression().fit(x, y)
    reference = pack(model, sample=x, y=y, tag="q:1", options=PackOptions(validation=unseen)).reference
    assert reference is not None
    assert reference.profile.n == 200
    assert reference.sources == {"profile": "validation", "importance": "sample", "metrics": "sample"}
    assert reference.metrics["accuracy"] == pytest.approx(model.score(x, y))


def test_a_regressors_error_is_split_too() -> None:
    x, _, site = rows(300)
    value = (x.temp + x.load).to_numpy()
    model = RandomForestRegressor(5, random_state=0).fit(x, value)
    reference = pack(
        model, sample=x, y=value + 1.0, tag="q:1", options=PackOptions(segments={"site": site, "temp": x.temp})
    ).reference
    assert reference is not None
    assert reference.quality is not None
    assert reference.quality.error_mean == pytest.approx(-1.0, abs=0.1)
    assert len(reference.segments) == 2 + 4  # two sites, four quarters of the temperature


def test_a_split_without_labels_is_refused() -> None:
    x, y, site = rows(100)
    with pytest.raises(SampleError, match="need labels"):
        pack(LogisticRegression().fit(x, y), sample=x, tag="q:1", options=PackOptions(segments={"site": site}))


def test_parity_is_a_gate_on_validation_data_too() -> None:
    x, y, _ = rows(200)
    model = LogisticRegression().fit(x.to_numpy(), y)
    plain = model.predict  # answers otherwise where the temperature is beyond what the sample holds
    model.predict = lambda rows: np.where(np.asarray(rows)[:, 0] > 100, "good", plain(rows))
    unseen = np.vstack([x.to_numpy(), [[500.0, 1.0], [600.0, 1.0]]])
    with pytest.raises(ParityError, match="on the validation data.*label differs in 2 of 202 rows") as caught:
        pack(model, sample=x.to_numpy(), tag="q:1", options=PackOptions(validation=unseen))
    assert caught.value.report["data"] == "validation"
    assert "--max-label-flips 1%" in caught.value.hint
    loose = PackOptions(validation=unseen, tolerance=Tolerance(max_label_flips=0.01))
    assert pack(model, sample=x.to_numpy(), tag="q:1", options=loose).parity["validation"]["label_flips"] == 2


def large_offsets() -> tuple[pd.DataFrame, np.ndarray]:
    x = pd.DataFrame({"plain": RNG.normal(size=600), "counter": 1e8 + RNG.normal(0, 5, 600)})
    return x, (x.counter > 1e8).astype(int).to_numpy()


def test_a_scaler_before_trees_keeps_its_precision_by_default() -> None:
    x, y = large_offsets()
    model = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(x, y)
    bundle = pack(model, sample=x, tag="q:1")
    assert bundle.parity is not None
    assert bundle.parity["label_flips"] == 0
    assert {field.dtype for field in bundle.schema.inputs} == {"float64"}


def test_the_command_splits_validation_figures_by_columns_that_are_no_features(tmp_path: Path, capsys) -> None:
    x, y, site = rows(200)
    joblib.dump(LogisticRegression().fit(x.to_numpy(), y), tmp_path / "m.joblib")
    table = x.assign(y=y, site=site)
    table.to_csv(tmp_path / "train.csv", index=False)
    table[:150].to_csv(tmp_path / "unseen.csv", index=False)
    command = ["pack", str(tmp_path / "m.joblib"), "--trust", "--sample", str(tmp_path / "train.csv"), "--target", "y"]
    command += ["--validation", str(tmp_path / "unseen.csv"), "-t", "q:1.0", "-o", str(tmp_path / "q"), "--json"]
    assert run([*command, "--segment-by", "site"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sum(part["n"] for part in answer["segments"]) == 150
    assert answer["sources"]["metrics"] == "validation"
    assert run([*command, "--segment-by", "town", "--force"]) == 2
    assert "has no column 'town'" in capsys.readouterr().err


def test_where_precision_is_the_cause_the_feature_is_named() -> None:
    x, y = large_offsets()
    model = make_pipeline(StandardScaler(), RandomForestClassifier(11, random_state=0)).fit(x, y)
    rows = make_sample(x, model=model)
    assert {column.dtype for column in rows.columns} == {"float32"}
    with pytest.raises(ParityError) as caught:
        convert(model, rows)
    assert "of 600 rows" in caught.value.message
    assert "The feature 'counter' loses precision in float32" in caught.value.message
    assert caught.value.report["feature"] == "counter"
