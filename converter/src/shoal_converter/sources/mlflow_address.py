"""Addresses of MLflow: ``models:/name/version``, ``models:/name@alias``, ``models:/m-…`` and ``runs:/id/path``.

Owns the way from an address to a folder on this disk, by MLflow's own client and its settings (MLFLOW_TRACKING_URI,
MLFLOW_TRACKING_TOKEN …), and what MLflow knows of the model. An alias is resolved to its version once, so that what is
recorded is what was fetched. Leaves reading the folder to `mlflow_folder`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from shoal_converter.errors import LibraryMissingError, RegistryError, SourceError

_ADDRESS = re.compile(r"(models|runs):/+(.+)")
_ALIAS = re.compile(r"(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_VERSION = re.compile(r"(?P<name>[^/@]+)/(?P<version>[^/@]+)")
_SETTING = "MLFLOW_TRACKING_URI"
_NETWORK = ("API request to", "Max retries", "Connection", "timed out")


@dataclass(frozen=True)
class Fetched:
    """A model that was fetched from MLflow.

    Attributes:
        folder: As MLflow wrote it.
        lineage: Registered name, version, alias and run, for the provenance.
    """

    folder: Path
    lineage: dict[str, str]


def is_address(source: Path | str) -> bool:
    """Tell whether something is an address of MLflow; as a path it lost doubled slashes, which mean nothing."""
    return _ADDRESS.fullmatch(str(source)) is not None


@contextmanager
def fetched(source: Path | str) -> Iterator[Fetched]:
    """Yield a model as long as it is needed.

    Raises:
        LibraryMissingError: MLflow is not installed.
        SourceError: There is no such run, model, version or alias.
        RegistryError: The tracking server can't be reached.
    """
    found = _ADDRESS.fullmatch(str(source))
    assert found is not None, "is_address was asked"
    kind, rest = found.group(1), found.group(2)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow  # noqa: PLC0415 - heavy, optional
    except ImportError as error:
        raise LibraryMissingError(
            f"{source} is an address of MLflow, which is not installed here",
            hint="pip install 'shoal-converter[mlflow]'; or fetch the folder elsewhere and pack that: "
            f"mlflow artifacts download -u {source} -d model",
        ) from error
    with tempfile.TemporaryDirectory(prefix="shoal-mlflow-") as folder:
        try:
            address, lineage = _resolved(mlflow, kind, rest)
            path = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=folder))
        except Exception as error:
            raise _error(str(source), _tracking(mlflow), error) from error
        yield Fetched(path, {"mlflow_tracking_uri": _tracking(mlflow), **lineage})


def _resolved(mlflow: Any, kind: str, rest: str) -> tuple[str, dict[str, str]]:
    """Return an address that means one model for good, and what is known of it."""
    if kind == "runs":
        return f"runs:/{rest}", {"mlflow_run_id": rest.partition("/")[0]}
    alias, version = _ALIAS.fullmatch(rest), _VERSION.fullmatch(rest)
    client = mlflow.MlflowClient()
    if alias is not None:
        known = client.get_model_version_by_alias(alias["name"], alias["alias"])
    elif version is not None and version["version"].isdecimal():
        known = client.get_model_version(version["name"], version["version"])
    elif version is not None and version["version"] == "latest":
        known = max(client.search_model_versions(f"name='{version['name']}'"), key=lambda each: int(each.version))
    else:
        return f"models:/{rest}", {}
    lineage = {"mlflow_model_name": known.name, "mlflow_model_version": str(known.version)}
    if alias is not None:
        lineage["mlflow_model_alias"] = alias["alias"]
    if known.run_id:
        lineage["mlflow_run_id"] = str(known.run_id)
    return f"models:/{known.name}/{known.version}", lineage


def _tracking(mlflow: Any) -> str:
    """Return where MLflow keeps its records, without a password."""
    address = str(mlflow.get_tracking_uri())
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address


def _error(source: str, tracking: str, error: Exception) -> Exception:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    if any(word in str(error) for word in _NETWORK) and "RESOURCE_DOES_NOT_EXIST" not in str(error):
        return RegistryError(
            f"MLflow at {tracking} can't be reached: {reason}", hint="is MLFLOW_TRACKING_URI right, and the server up?"
        )
    return SourceError(
        f"MLflow at {tracking} has no {source}: {reason}",
        hint="models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID/PATH; "
        + ("MLFLOW_TRACKING_URI says where" if _SETTING in os.environ else f"set {_SETTING}: it says where"),
    )
