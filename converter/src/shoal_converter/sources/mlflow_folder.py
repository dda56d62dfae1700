"""Folders that MLflow writes for a model: which file in them is the model, and what MLflow knows of it.

Owns the reading of ``MLmodel`` (https://mlflow.org/docs/latest/ml/model/); MLflow itself is not imported. The model's
file is then read like any other of its kind, so a pickle in it needs the same trust. Leaves environments (conda.yaml,
requirements.txt) aside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from shoal_converter.errors import SourceError, UnsupportedModelError
from shoal_converter.sources.tensorflow_file import is_saved_model

_FILE = "MLmodel"
_KEYS = {
    "sklearn": ("pickled_model",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "catboost": ("data",),
    "onnx": ("data",),
    "keras": ("data",),
    "tensorflow": ("data", "saved_model_dir"),
    "pytorch": ("model_data",),
}
"""Flavours that hold a model of a kind that packs, the most telling first, and the entries that may name its file."""
_INSIDE = ("*.onnx", "*.keras", "*.pt2", "*.pth")
"""What the model is called where an entry names a folder."""


@dataclass(frozen=True)
class MlflowModel:
    """A model that MLflow saved.

    Attributes:
        flavour: ``sklearn``, ``xgboost``, ``lightgbm``, ``catboost``, ``onnx``, ``keras``, ``tensorflow``, ``pytorch``.
        path: The model's own file; of TensorFlow its folder.
        example: Its input example, or none.
        lineage: Run, model and version of MLflow, for the provenance.
    """

    flavour: str
    path: Path
    example: Path | None = None
    lineage: dict[str, str] = field(default_factory=dict)


def is_mlflow(path: Path) -> bool:
    """Tell whether a path is a folder that MLflow wrote for a model."""
    return (path / _FILE).is_file()


def read_mlflow(folder: Path) -> MlflowModel:
    """Read what a folder holds.

    Raises:
        SourceError: ``MLmodel`` does not parse, or a file that it names is not in the folder.
        UnsupportedModelError: It has no flavour that packs.
    """
    document = _document(folder)
    flavours = document.get("flavors")
    if not isinstance(flavours, dict) or not flavours:
        raise _damaged(folder, "it names no flavors")
    flavour = next((name for name in _KEYS if isinstance(flavours.get(name), dict)), None)
    if flavour is None:
        raise UnsupportedModelError(
            f"MLflow flavor {', '.join(sorted(map(str, flavours)))}",
            "it holds no model of a kind that is known",
            f"log the model itself, by one of mlflow.{', mlflow.'.join(_KEYS)}",
        )
    entry = flavours[flavour]
    example = document.get("saved_input_example_info")
    named = example.get("artifact_path") if isinstance(example, dict) else None
    return MlflowModel(
        flavour,
        _inside(folder, next((entry[key] for key in _KEYS[flavour] if key in entry), None)),
        None if named is None else _inside(folder, named),
        _lineage(document),
    )


def _document(folder: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _damaged(folder, str(error).splitlines()[0]) from error
    if not isinstance(document, dict):
        raise _damaged(folder, "it is no mapping")
    return document


def _damaged(folder: Path, why: str) -> SourceError:
    return SourceError(f"{folder.name}/{_FILE} can't be read: {why}", hint="was the folder copied completely?")


def _inside(folder: Path, name: Any) -> Path:
    """Return a file of the folder; names that leave it, also by links, are refused."""
    if not isinstance(name, str) or PurePosixPath(name).is_absolute():
        raise _damaged(folder, f"it names the file {name!r}")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise _damaged(folder, f"the file {name!r} is outside the folder")
    if path.is_dir():
        found = [each for pattern in _INSIDE for each in sorted(path.glob(pattern))]
        if len(found) == 1:
            return found[0]
        for model in (path, path / "model"):
            if is_saved_model(model):
                return model
    if not path.is_file():
        raise _damaged(folder, f"the file {name!r} is not there")
    return path


def _lineage(document: dict[str, Any]) -> dict[str, str]:
    named = {
        "mlflow_run_id": document.get("run_id"),
        "mlflow_model_id": document.get("model_id"),
        "mlflow_model_uuid": document.get("model_uuid"),
        "mlflow_version": document.get("mlflow_version"),
    }
    return {name: str(value) for name, value in named.items() if value}
