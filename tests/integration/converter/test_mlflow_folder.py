"""Folders as MLflow writes them (here written by hand, in its form) pack without MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xgboost as xgb
import yaml
from tests.integration.converter.conftest import Workshop

from shoal_converter import Bundle, UnsupportedModelError
from shoal_converter.errors import EXIT_OK, EXIT_UNSUPPORTED, EXIT_USAGE, SourceError
from shoal_converter.sources.mlflow_folder import read_mlflow


def folder(path: Path, flavour: str, entry: dict[str, Any], **more: Any) -> Path:
    path.mkdir()
    document = {
        "flavors": {"python_function": {"loader_module": f"mlflow.{flavour}"}, flavour: entry},
        "mlflow_version": "3.17.2",
        "run_id": "0123456789abcdef",
        "model_id": None,
        **more,
    }
    (path / "MLmodel").write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture
def logged(tmp_path: Path, workshop: Workshop) -> Path:
    """A pipeline with an input example."""
    example = {"saved_input_example_info": {"artifact_path": "input_example.json", "type": "dataframe"}}
    made = folder(tmp_path / "logged", "sklearn", {"pickled_model": "model.pkl"}, **example)
    joblib.dump(workshop.model, made / "model.pkl")
    (made / "input_example.json").write_text(json.dumps(workshop.rows[:40].to_dict("split", index=False)))
    return made


def test_the_input_example_is_the_sample_and_the_run_is_in_the_provenance(
    shoal_convert: Any, tmp_path: Path, logged: Path
) -> None:
    code, _, err = shoal_convert("pack", str(logged), "--trust", "-t", "iris:1.0.0")
    assert code == EXIT_OK, err
    bundle = Bundle.open(tmp_path / "iris-1.0.0.tar")
    assert bundle.schema.inputs[0].name == "sepal length (cm)"
    parameters = bundle.statement("provenance")["buildDefinition"]["externalParameters"]
    assert parameters["mlflow_run_id"] == "0123456789abcdef"
    assert "mlflow_model_id" not in parameters


def test_a_pickle_inside_needs_trust(shoal_convert: Any, logged: Path) -> None:
    code, _, err = shoal_convert("pack", str(logged), "-t", "iris:1.0.0")
    assert code == EXIT_USAGE
    assert "--trust" in err


def test_a_booster_needs_none(shoal_convert: Any, tmp_path: Path, workshop: Workshop) -> None:
    made = folder(tmp_path / "logged", "xgboost", {"data": "model.xgb"})
    xgb.XGBRegressor(n_estimators=4).fit(workshop.rows, np.arange(150)).save_model(tmp_path / "m.ubj")
    (tmp_path / "m.ubj").rename(made / "model.xgb")
    sample = workshop.rows.to_csv(tmp_path / "rows.csv", index=False) or "rows.csv"
    code, _, err = shoal_convert("pack", str(made), "--sample", sample, "-t", "iris:1.0.0")
    assert code == EXIT_OK, err


def test_without_an_example_a_sample_is_asked_for(shoal_convert: Any, tmp_path: Path, workshop: Workshop) -> None:
    made = folder(tmp_path / "logged", "sklearn", {"pickled_model": "model.pkl"})
    joblib.dump(workshop.model, made / "model.pkl")
    code, _, err = shoal_convert("pack", str(made), "--trust", "-t", "iris:1.0.0")
    assert code == EXIT_USAGE
    assert "--sample" in err


def test_a_flavour_that_does_not_pack_is_named(shoal_convert: Any, tmp_path: Path) -> None:
    made = folder(tmp_path / "logged", "prophet", {"data": "model"})
    with pytest.raises(UnsupportedModelError, match="prophet"):
        read_mlflow(made)
    assert shoal_convert("pack", str(made), "--sample", "a.csv", "-t", "iris:1.0.0")[0] == EXIT_UNSUPPORTED


@pytest.mark.parametrize("name", ["../outside.pkl", "/etc/passwd", "absent.pkl", 3, None])
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / "outside.pkl").write_bytes(b"")
    with pytest.raises(SourceError, match="can't be read"):
        read_mlflow(folder(tmp_path / "logged", "sklearn", {"pickled_model": name}))


@pytest.mark.parametrize("text", ["a: [", "- 1", "flavors: 3"])
def test_a_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    made = folder(tmp_path / "logged", "sklearn", {"pickled_model": "model.pkl"})
    (made / "MLmodel").write_text(text)
    with pytest.raises(SourceError, match="MLmodel can't be read"):
        read_mlflow(made)
