"""Checks of what is installed here: the libraries and extras, one real conversion, the child process for pickles."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

from packaging.requirements import Requirement

from shoal_converter.doctor.findings import Finding

VersionOf = Callable[[str], str | None]

_CHILD = """
import json, pathlib, sys, tempfile
if sys.platform == "linux":
    from shoal_converter.confinement.reach import confine
    lacking = confine(readable=[], work=pathlib.Path(tempfile.gettempdir()))
else:
    lacking = ("network", "files")
print(json.dumps(lacking))
"""


def examine_installation() -> Iterator[Finding]:
    """Make all of them."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from libraries(metadata.requires("shoal-converter") or (), _version_of)
    yield _conversion()
    yield _pickles()


def libraries(requires: Sequence[str], version_of: VersionOf) -> Iterator[Finding]:
    """Compare what is installed with what the distribution declares: its needs, then each extra.

    Args:
        requires: As in the distribution's metadata (PEP 508).
        version_of: Returns a distribution's version, none where it isn't installed.
    """
    extras: dict[str, list[Requirement]] = {}
    for need in map(Requirement, requires):
        extra = _extra_of(need)
        if extra is not None:
            extras.setdefault(extra, []).append(need)
        elif need.marker is None or need.marker.evaluate():
            yield _library(need, version_of(need.name))
    for extra, needs in sorted(extras.items()):
        yield _extra(extra, needs, version_of)


def _library(need: Requirement, have: str | None) -> Finding:
    cure = f"pip install '{need.name}{need.specifier}'"
    if have is None:
        return Finding(need.name, "wrong", "is not installed", cure)
    if not need.specifier.contains(have, prereleases=True):
        return Finding(need.name, "wrong", f"{have} is installed, {need.specifier} is needed", cure)
    return Finding(need.name, "ok", f"{have} ({need.specifier})")


def _extra(extra: str, needs: Sequence[Requirement], version_of: VersionOf) -> Finding:
    have = {need.name: version_of(need.name) for need in needs}
    cure = f"pip install 'shoal-converter[{extra}]'"
    name = f"extra {extra}"
    if None in have.values():
        absent = ", ".join(name for name, version in have.items() if version is None)
        return Finding(name, "note", f"{absent} is not installed; needed only for what it brings", cure)
    old = [n.name for n in needs if not n.specifier.contains(have[n.name] or "", prereleases=True)]
    if old:
        return Finding(name, "wrong", f"{old[0]} {have[old[0]]} is too old for it", cure)
    return Finding(name, "ok", ", ".join(f"{name} {version}" for name, version in have.items()))


def _extra_of(need: Requirement) -> str | None:
    """Return the extra that a requirement belongs to, by the marker that names it; none for one that always holds."""
    if need.marker is None or need.marker.evaluate({"extra": ""}):
        return None
    text = str(need.marker)
    return text.split("extra == ", 1)[1].strip("\"' )").split('"')[0] if "extra == " in text else None


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _conversion() -> Finding:
    """Convert a small model for real: versions that fit on paper need not fit each other."""
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        from shoal_converter.packing import to_onnx  # noqa: PLC0415

        rows = [[0.0, 1.0], [1.0, 0.0], [2.0, 1.5], [3.0, 0.5]]
        raw = to_onnx(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, [0, 0, 1, 1]), rows)
    except Exception as error:  # noqa: BLE001 - whatever breaks here is the finding
        first = (str(error).strip().splitlines() or [""])[0]
        return Finding(
            "conversion",
            "wrong",
            f"a small model does not convert: {type(error).__name__}: {first[:200]}",
            "install the converter into a new environment with its constraints.txt: these versions don't work together",
        )
    return Finding("conversion", "ok", f"a small model converts and answers alike ({len(raw):,} bytes)")


def _pickles() -> Finding:
    """Ask a child process what it can be shut off from, as one that runs a pickle's code is."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Finding("pickles", "wrong", f"the child process fails: {last[:200]}", "is the installation whole?")
    lacking = json.loads(done.stdout)
    if not lacking:
        return Finding("pickles", "ok", "--trust loads them in a child process without network and without your files")
    return Finding(
        "pickles",
        "note",
        f"this system does not let a process be shut off from {' and '.join(lacking)}, so --trust refuses pickles",
        "Linux 5.13 and newer can, in containers unless their profile forbids landlock and seccomp; "
        "or say --trust=unisolated",
    )
