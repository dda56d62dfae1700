"""Programs nobody here wrote that don't fit into one environment with ours: `make peers` installs them beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".venv-peers" / "bin"


def peer(name: str) -> str:
    """Return the path of a peer's program; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=str(FOLDER))
    if found is None:
        pytest.skip(f"{name} is not installed (make peers)")
    return found
