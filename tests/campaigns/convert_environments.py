"""One virtual environment for each heavy framework, so that none bends the versions of another: plain venv and pip.

What converts (scikit-learn, onnx, onnxruntime …) is pinned as in constraints.txt; the rest is the framework's choice.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-campaign"
_PINNED = ("numpy", "onnx", "onnxruntime", "scikit-learn", "scipy", "skl2onnx")
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Environment:
    """What one framework's environment holds.

    Attributes:
        name: Of the framework, and of its folder.
        extra: Of shoal-converter; empty where this program's own environment does.
        more: Further requirements.
        first: Arguments of pip for what has to be there before, such as PyTorch's CPU build.
    """

    name: str
    extra: str = ""
    more: Sequence[str] = ()
    first: Sequence[str] = ()

    def python(self) -> str:
        """Return its interpreter, after making it where it isn't.

        Raises:
            subprocess.CalledProcessError: pip fails.
        """
        if not self.extra:
            return sys.executable
        folder = FOLDER / self.name
        python = folder / "bin" / "python"
        if not (folder / ".done").is_file():
            print(f"making {folder.relative_to(ROOT)} ...", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            if self.first:
                _pip(python, *self.first)
            parts = [f"--editable={ROOT / part}" for part in ("protocol", "agent")]
            _pip(python, *parts, f"--editable={ROOT / 'converter'}[{self.extra}]", "pandas", *self.more)
            (folder / ".done").touch()
        return str(python)


ENVIRONMENTS = {
    each.name: each
    for each in (
        Environment("sklearn"),
        Environment("boosting"),
        Environment("catboost", extra="catboost"),
        Environment(
            "torch",
            extra="torch,mlflow",
            first=("--no-deps", "--retries=0", f"--extra-index-url={_CPU_INDEX}", "torch==2.13.0+cpu"),
        ),
        Environment("keras", extra="tensorflow,mlflow"),
        Environment("mlflow", extra="mlflow", more=("skops", "xgboost-cpu", "lightgbm")),
    )
}


def _pip(python: Path, *arguments: str) -> None:
    pins = FOLDER / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins.write_text("\n".join(line for line in lines if line.partition("==")[0] in _PINNED))
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*command, f"--constraint={pins}", *arguments], check=True)
