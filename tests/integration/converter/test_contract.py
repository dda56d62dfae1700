"""A contract from its file to the counts of a device: packed, loaded, broken, counted and refused."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.errors import InputError
from shoal_agent.runtime.model import LoadedModel
from shoal_converter.cli import cli
from shoal_converter.contract import agreed
from shoal_protocol.errors import ShoalError

CONTRACT = """
fields:
  age: {range: [0, 100], missing: 0.1}
  city: {categories: [Basel, Bern, Chur]}
  load: {range: [0, null], action: refuse}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contract")
    random = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "age": random.integers(18, 90, 200).astype(float),
            "city": random.choice(["Bern", "Basel", "Chur"], 200),
            "load": random.random(200) * 10,
        }
    )
    target = (rows.age + rows.load > 55).astype(int)
    model = make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["age", "load"]), (OneHotEncoder(handle_unknown="ignore"), ["city"])
        ),
        LogisticRegression(),
    ).fit(rows, target)
    joblib.dump(model, path / "model.joblib")
    rows.assign(y=target).to_csv(path / "train.csv", index=False)
    (path / "contract.yaml").write_text(CONTRACT)
    return path


def packed(folder: Path, *more: str) -> Any:
    arguments = ["pack", "model.joblib", "--trust", "--sample", "train.csv", "--target", "y", "-t", "risk:1.0.0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(cli, [*arguments, "--force", *more])


def test_a_device_counts_and_refuses(folder: Path) -> None:
    result = packed(folder, "--contract", "contract.yaml", "-o", "risk.tar")
    assert result.exit_code == 0, result.output
    model = LoadedModel.load(open_bundle(folder / "risk.tar"))
    rows = [{"age": 30.0, "city": "Bern", "load": 1.0}, {"age": 130.0, "city": "Genf", "load": 0.0}]
    model.predict_rows(rows)
    model.predict_rows([{"age": -1.0, "city": "Basel", "load": 3.0}])
    with pytest.raises(InputError, match=r"load.*at least 0 \(contract\)"):
        model.predict_rows([rows[0], {"age": 30.0, "city": "Bern", "load": -0.5}])
    window = model.observer.close_window()
    words = dict(zip([rule.words for rule in model.schema.contract], window.violations, strict=True))
    assert words == {
        "age must be from 0 to 100": 2,
        "age must not be missing": 0,
        "city must be one of Basel, Bern, Chur": 1,
        "load must be at least 0": 0,
    }
    assert (window.n, window.refused) == (3, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fields: {weight: {range: [0, 1]}}", "'weight' is no feature"),
        ("fields: {city: {range: [0, 1]}}", "is a text"),
        ("fields: [", "no YAML"),
        ("age: {range: [0, 1]}", "a mapping `fields`"),
        ("fields: {wieght: {range: [0, 1]}, aeg: {missing: 0}}", "'aeg' is no feature of this model; do you mean age?"),
        ("fields:\n  age: {missing: 0}\n  age: {range: [0, 1]}\n", "'age' (lines 2 and 3)"),
    ],
)
def test_a_faulty_contract_is_refused_by_name(folder: Path, text: str, said: str) -> None:
    (folder / "faulty.yaml").write_text(text)
    result = packed(folder, "--contract", "faulty.yaml", "-o", "faulty.tar")
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output
    assert not (folder / "faulty.tar").exists()


def test_packing_says_which_rules_the_sample_breaks() -> None:
    from shoal_protocol.bundle.schema import FieldSpec

    said: list[str] = []
    fields = [FieldSpec(name="x", dtype="float32", tensor="x", column=0)]
    tensors = {"x": np.array([[1.0], [5.0]], np.float32)}
    agreed({"fields": {"x": {"range": [0, 2]}}}, fields, tensors, tell=said.append)
    assert said == ["contract: x must be from 0 to 2, but 1 of the 2 rows here break it"]
    with pytest.raises(ShoalError):
        agreed({"fields": {"z": {"range": [0, 2]}}}, fields, tensors, tell=said.append)
