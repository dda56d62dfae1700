"""The agent's contract on weight: its wheel, alone in an empty environment, installs little, imports less, works."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from fixtures_models import linear_bundle, write_tar

ROOT = Path(__file__).resolve().parents[3]
CONSTRAINTS = ROOT / "constraints.txt"

UNWANTED = {
    "onnx", "scikit-learn", "pydantic", "fastapi", "starlette", "uvicorn", "sqlmodel", "sqlalchemy", "pandas", "scipy",
    "click", "rich", "jinja2", "httpx", "zstandard", "shoal-server", "shoal-converter",
}  # fmt: skip
UNWANTED_MODULES = {name.replace("-", "_") for name in UNWANTED} | {"sklearn"}

LOADED = """
import sys
from shoal_agent.cli import main
code = main(sys.argv[1:])
print("MODULES", *sys.modules, file=sys.stderr)
sys.exit(code)
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SHOAL"))}
    done = subprocess.run(
        [str(part) for part in command],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheels, install them alone, return that environment's interpreter."""
    folder = tmp_path_factory.mktemp("alone")
    constraints = ["-c", CONSTRAINTS] if CONSTRAINTS.is_file() else []
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", folder / "wheels", ROOT / "protocol", ROOT / "agent")
    wheels = sorted((folder / "wheels").glob("*.whl"))
    assert {wheel.name.split("-")[0] for wheel in wheels} == {"shoal_agent", "shoal_protocol"}
    venv.create(folder / "env", with_pip=False)
    interpreter = folder / "env" / "bin" / "python"
    run(*pip, "--python", interpreter, "install", *constraints, *wheels)
    return interpreter


def test_help_is_given_without_the_runtime(python: Path) -> None:
    done = run(python.with_name("shoal-agent"), "--help")
    assert "join" in done.stdout
    assert run(python.with_name("shoal-agent"), "--version").stdout == "shoal-agent, version 0.1.0\n"
    lazy = "import sys, shoal_agent, shoal_agent.cli; print(*sys.modules)"
    assert {"onnxruntime", "cryptography", "numpy"} & set(run(python, "-c", lazy).stdout.split()) == set()


def test_a_bundle_is_asked(python: Path, tmp_path: Path) -> None:
    bundle = write_tar(tmp_path / "quality.tar", *linear_bundle())
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{f"x{at}": float(at) for at in range(4)}] * 2))
    done = run(python, "-c", LOADED, "predict", "--bundle", bundle, "--input", rows, HOME=str(tmp_path / "home"))
    document = json.loads(done.stdout)
    assert document["bundle"] == "quality:1.0.0"
    assert [row["label"] for row in document["predictions"]] == [document["predictions"][0]["label"]] * 2
    assert sum(document["predictions"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    loaded = set(done.stderr.partition("MODULES ")[2].split())
    assert "onnxruntime" in loaded
    assert (UNWANTED_MODULES | {"cryptography", "tuf"}) & loaded == set()
    assert not (tmp_path / "home").exists()


def test_nothing_heavy_is_installed(python: Path) -> None:
    listing = "import importlib.metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))"
    installed = set(run(python, "-c", listing).stdout.split())
    assert {"shoal-agent", "shoal-protocol", "onnxruntime", "paho-mqtt"} <= installed
    assert UNWANTED & installed == set()
