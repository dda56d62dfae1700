"""Where a bundle comes from: git, the sample's digest, package versions, and what the caller adds.

Owns the statements that stand beside a bundle, outside its digest, because they tell of circumstances: an in-toto
statement (https://in-toto.io/Statement/v1) with SLSA provenance v1, and one with the parity report. The subject of both
is the bundle's manifest.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.canonical import canonical_bytes, sha256_digest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
PARITY = "urn:shoal:parity:v1"
MEASUREMENT = "urn:shoal:measurement:v1"
BUILD_TYPE = "urn:shoal:pack:v1"

PACKAGES = ("shoal-converter", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "scipy", "pandas")


@dataclass(frozen=True)
class GitState:
    """A working folder under git: its commit, whether it has changes, and its remote without credentials."""

    commit: str
    dirty: bool
    remote: str | None = None


@dataclass(frozen=True)
class Lineage:
    """What is known about how a bundle was made.

    Attributes:
        git: State of the source folder, or none.
        source_digest: Of the model file, when it came from one.
        sample_digest: Of the sample's rows as fed, dtype and shape included.
        sample_rows: Number of rows.
        packages: Versions by distribution.
        python: Version and platform.
        extra: What the caller added: parameters, run ids.
    """

    git: GitState | None
    source_digest: str | None
    sample_digest: str
    sample_rows: int
    packages: dict[str, str]
    python: dict[str, str]
    extra: dict[str, str] = field(default_factory=dict)


def gather(
    *,
    tensors: Mapping[str, npt.NDArray[Any]],
    source: Path | None = None,
    folder: Path | None = None,
    extra: Mapping[str, str] | None = None,
) -> Lineage:
    """Gather what can be known here.

    Args:
        tensors: The sample as fed.
        source: The model's file, if any.
        folder: Where to ask git; the working folder if not given.
        extra: Added as it is.
    """
    return Lineage(
        git=git_state(folder or Path.cwd()),
        source_digest=sha256_digest(source.read_bytes()) if source is not None and source.is_file() else None,
        sample_digest=sample_digest(tensors),
        sample_rows=len(next(iter(tensors.values()))),
        packages={name: version for name in PACKAGES if (version := _version(name)) is not None},
        python={"version": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()},
        extra=dict(extra or {}),
    )


def sample_digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return one digest over the rows, their tensors' names, types and shapes."""
    parts: list[Any] = []
    for name, values in sorted(tensors.items()):
        raw = (
            canonical_bytes([str(v) for v in values.ravel().tolist()])
            if values.dtype.kind in "OUS"
            else np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        )
        parts.append([name, str(values.dtype), list(values.shape), sha256_digest(raw)])
    return sha256_digest(canonical_bytes(parts))


def git_state(folder: Path) -> GitState | None:
    """Return the state of the git repository that holds a folder, or none where there is none, or no git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return GitState(commit, bool(status), _without_credentials(_git(folder, "remote", "get-url", "origin")))


def project_folders(folder: Path) -> list[Path]:
    """Return the repository that holds a folder, and where git keeps its records; never a whole home folder."""
    found = _git(folder, "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir")
    folders = [Path(line) for line in (found or "").splitlines()]
    return [each for each in folders if each not in {Path.home(), Path("/")}]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _without_credentials(remote: str | None) -> str | None:
    if remote is None or "://" not in remote:
        return remote
    scheme, rest = remote.split("://", 1)
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def provenance_statement(lineage: Lineage, *, subject: str, digest: str, finished_at: str) -> bytes:
    """Return an in-toto statement with SLSA provenance.

    Args:
        lineage: What is known.
        subject: The bundle's reference, ``name:version``.
        digest: Of its manifest.
        finished_at: RFC 3339 time.
    """
    materials: list[dict[str, Any]] = [
        {
            "name": "sample",
            "digest": {"sha256": lineage.sample_digest[7:]},
            "annotations": {"rows": lineage.sample_rows},
        }
    ]
    if lineage.source_digest:
        materials.append({"name": "model", "digest": {"sha256": lineage.source_digest[7:]}})
    if lineage.git:
        entry: dict[str, Any] = {
            "name": "source",
            "digest": {"gitCommit": lineage.git.commit},
            "annotations": {"dirty": lineage.git.dirty},
        }
        materials.append(entry | ({"uri": lineage.git.remote} if lineage.git.remote else {}))
    return statement(
        subject,
        digest,
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": lineage.extra,
                "internalParameters": {"packages": lineage.packages, "python": lineage.python},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": "urn:shoal:shoal-convert", "version": lineage.packages},
                "metadata": {"finishedOn": finished_at},
            },
        },
    )


def parity_statement(report: Mapping[str, Any], *, subject: str, digest: str) -> bytes:
    """Return an in-toto statement with the parity report."""
    return statement(subject, digest, PARITY, dict(report))


def measurement_statement(report: Mapping[str, Any], *, subject: str, digest: str) -> bytes:
    """Return an in-toto statement with what the model and its variants cost on the machine that packed them."""
    return statement(subject, digest, MEASUREMENT, dict(report))


def statement(subject: str, digest: str, kind: str, predicate: dict[str, Any]) -> bytes:
    """Return an in-toto statement about a bundle.

    Args:
        subject: Its reference, ``name:version``.
        digest: Of its manifest.
        kind: Type of the predicate.
        predicate: What is said.
    """
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": subject, "digest": {"sha256": digest[7:]}}],
            "predicateType": kind,
            "predicate": predicate,
        }
    )
