"""Models and samples that the converter's integration tests share, trained once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shoal_converter import Bundle, pack
from shoal_converter.cli import run
from shoal_server.registry.trust import TrustService
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, fake_services

collect_ignore = [] if find_spec("torch") else ["test_torch_source.py"]
"""PyTorch is too large for the environment of every test; where somebody installed it, its tests run."""


def pytest_report_header() -> str | None:
    """Say what is not collected."""
    return f"not collected, PyTorch is not installed: {', '.join(collect_ignore)}" if collect_ignore else None


@dataclass(frozen=True)
class Workshop:
    """A fitted model with files of it and its sample."""

    folder: Path
    model: Any
    rows: Any
    labels: Any

    def file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    frame, labels = load_iris(return_X_y=True, as_frame=True)
    species = np.array(["setosa", "versicolor", "virginica"])[labels]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, species)
    joblib.dump(model, folder / "model.joblib")
    frame.assign(species=species).to_csv(folder / "train.csv", index=False)
    np.savez(folder / "train.npz", X=frame.to_numpy(), y=species)
    np.save(folder / "rows.npy", frame.to_numpy())
    return Workshop(folder, model, frame, species)


@pytest.fixture(scope="session")
def bundle(workshop: Workshop) -> Bundle:
    return pack(workshop.model, sample=workshop.rows, y=workshop.labels, tag="iris:1.0.0")


@pytest.fixture
def shoal_convert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in an empty folder and an empty environment; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("SHOAL_URL", "SHOAL_TOKEN", "SHOAL_TOKEN_FILE", "SHOAL_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def shoal(tmp_path: Path) -> Iterator[Services]:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    database.upgrade()
    clock = FakeClock()
    trust = TrustService(database, keys_folder=tmp_path / "keys", clock=clock)
    yield fake_services(database, tmp_path, clock=clock, trust=trust)
    database.close()
