"""What a device has installed: the agent with all that it requires and nothing else, as an environment and as a size.

A developer's environment holds more, and some of it is imported where it is found (brotli by urllib3, typing_extensions
by msgspec), which no device would pay for.
"""

from __future__ import annotations

import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
OURS = "shoal-"


def required(*roots: str) -> dict[str, Distribution]:
    """Return packages and all that they require, by name, as far as this environment has them."""
    found: dict[str, Distribution] = {}
    pending = {*roots}
    while pending:
        name = pending.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package
        for text in package.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.add(requirement.name)
    return found


def size_mb(*roots: str, leave_out: frozenset[str] = frozenset()) -> float:
    """Return the size of packages and all they require.

    Args:
        roots: Names of packages.
        leave_out: Names of folders whose files don't count. Byte code never does: it is made anew anywhere.
    """
    files = (path for name, package in required(*roots).items() for path in _files(name, package))
    counted = (path for path in files if path.suffix != ".pyc" and not leave_out.intersection(path.parts))
    return sum(path.stat().st_size for path in counted if path.is_file()) / 1e6


def environment(folder: Path) -> Path:
    """Make an environment of links to what the agent requires; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    for name, package in required(OURS + "agent").items():
        if name.startswith(OURS):
            (site / name.replace("-", "_")).symlink_to(_source(name) / name.replace("-", "_"))
            continue
        for top in {file.parts[0] for file in package.files or []} - {".."}:
            link = site / top
            if not link.exists():  # several packages may share a namespace
                link.symlink_to(Path(package.locate_file(top)))
    return folder / "bin" / "python"


def _files(name: str, package: Distribution) -> Iterator[Path]:
    """Yield a package's files; of an editable one its sources, where they are."""
    if name.startswith(OURS):
        yield from _source(name).rglob("*.py")
    else:
        yield from (Path(package.locate_file(file)) for file in package.files or [])


def _source(name: str) -> Path:
    return HERE.parent / name.removeprefix(OURS) / "src"
