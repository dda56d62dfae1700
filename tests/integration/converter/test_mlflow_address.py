"""Addresses of MLflow are resolved once, fetched by its client, and what it knows goes into the provenance.

MLflow itself is too large for the environment of every test: a client of the same interface stands in for it here, and
the campaign `convert` asks a real tracking server.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import pytest
import yaml
from tests.integration.converter.conftest import Workshop

from shoal_converter import Bundle
from shoal_converter.errors import EXIT_FAILED, EXIT_NETWORK, EXIT_OK, EXIT_USAGE
from shoal_converter.sources.mlflow_address import fetched, is_address


class Registry:
    """A tracking server's side of the client: one model in three versions, the second the champion."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def version(self, number: str) -> Any:
        return SimpleNamespace(name="quality", version=number, run_id=f"run{number}")

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        if (name, alias) != ("quality", "champion"):
            raise RuntimeError(f"RESOURCE_DOES_NOT_EXIST: Registered model alias {alias} not found.\nmore")
        return self.version("2")

    def get_model_version(self, name: str, number: str) -> Any:
        if number == "8":
            raise RuntimeError("API request to http://mlflow failed with exception Max retries exceeded")
        return self.version(number)

    def search_model_versions(self, _: str) -> list[Any]:
        return [self.version(number) for number in ("9", "10", "1")]

    def download_artifacts(self, *, artifact_uri: str, dst_path: str) -> str:
        self.asked.append(artifact_uri)
        return str(shutil.copytree(self.folder, Path(dst_path) / "model"))


@pytest.fixture
def registry(tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Registry:
    folder = tmp_path / "logged"
    folder.mkdir()
    document = {"flavors": {"sklearn": {"pickled_model": "model.pkl"}}, "mlflow_version": "3.17.2"}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    joblib.dump(workshop.model, folder / "model.pkl")
    made = Registry(folder)
    client = SimpleNamespace(
        MlflowClient=lambda: made,
        artifacts=SimpleNamespace(download_artifacts=made.download_artifacts),
        get_tracking_uri=lambda: "https://ci:secret@mlflow.example:5000",
    )
    monkeypatch.setitem(sys.modules, "mlflow", client)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return made


@pytest.mark.parametrize(
    ("address", "asked", "known"),
    [
        ("models:/quality/3", "models:/quality/3", {"mlflow_model_version": "3", "mlflow_run_id": "run3"}),
        ("models:/quality@champion", "models:/quality/2", {"mlflow_model_alias": "champion", "mlflow_run_id": "run2"}),
        ("models:/quality/latest", "models:/quality/10", {"mlflow_model_version": "10"}),
        ("models:/m-0123", "models:/m-0123", {}),
        ("runs:/abc/path/to/model", "runs:/abc/path/to/model", {"mlflow_run_id": "abc"}),
    ],
)
def test_an_address_becomes_a_folder_and_what_is_known_of_it(
    registry: Registry, address: str, asked: str, known: dict[str, str]
) -> None:
    assert is_address(Path(address))
    with fetched(Path(address)) as found:
        assert (found.folder / "MLmodel").is_file()
    assert not found.folder.exists()
    assert registry.asked == [asked]
    assert known.items() <= found.lineage.items()
    assert found.lineage["mlflow_tracking_uri"] == "https://mlflow.example:5000"


@pytest.mark.parametrize("path", ["model.joblib", "models/quality", "runs", "s3://bucket/model", "C:/models/m.pkl"])
def test_paths_are_none(path: str) -> None:
    assert not is_address(Path(path))


def test_it_packs_and_the_provenance_names_version_and_run(
    shoal_convert: Any, registry: Registry, workshop: Workshop, tmp_path: Path
) -> None:
    rest = ("--sample", workshop.file("train.csv"), "--target", "species", "-t", "iris:1.0.0")
    code, _, err = shoal_convert("pack", "models:/quality@champion", *rest)
    assert (code, "--trust" in err) == (EXIT_USAGE, True), "a pickle needs trust wherever it comes from"
    code, _, err = shoal_convert("pack", "models:/quality@champion", "--trust", *rest)
    assert code == EXIT_OK, err
    provenance = Bundle.open(tmp_path / "iris-1.0.0.tar").statement("provenance")
    parameters = provenance["buildDefinition"]["externalParameters"]
    assert parameters["mlflow_model_name"] == "quality"
    assert parameters["mlflow_model_version"] == "2"
    assert parameters["mlflow_run_id"] == "run2"
    assert parameters["mlflow_version"] == "3.17.2"


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("address", "code", "told"),
    [("models:/quality@nobody", EXIT_USAGE, "has no"), ("models:/quality/8", EXIT_NETWORK, "can't be reached")],
)
def test_what_is_not_there_and_who_does_not_answer_are_told_apart(
    shoal_convert: Any, address: str, code: int, told: str
) -> None:
    found, _, err = shoal_convert("pack", address, "--trust", "-t", "iris:1.0.0")
    assert (found, told in err) == (code, True), err


def test_without_mlflow_the_extra_is_named(shoal_convert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    code, _, err = shoal_convert("pack", "models:/quality/1", "-t", "iris:1.0.0")
    assert code == EXIT_FAILED
    assert "shoal-converter[mlflow]" in err
