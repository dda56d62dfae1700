"""The agent as a Debian package: built from wheels, complete by itself, naming nothing of where it was built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures_models import linear_bundle, write_tar

ROOT = Path(__file__).resolve().parents[3]
HOME = Path("opt/shoal-agent")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed: this is no Debian"),
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the system has no Python of its own"),
]


def run(*command: str | Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SHOAL"))}
    done = subprocess.run(
        list(map(str, command)), env=clean | environment, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", folder / "wheels", ROOT / "protocol", ROOT / "agent")
    build, constraints = ROOT / "deploy" / "debian" / "build", str(ROOT / "constraints.txt")
    told = run(build, folder / "wheels", folder / "out", PIP=f"{sys.executable} -m pip", CONSTRAINTS=constraints)
    return Path(told.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def unpacked(package: Path) -> Path:
    run("dpkg-deb", "-x", package, package.parent / "tree")
    return package.parent / "tree"


def test_it_says_what_it_is_and_needs(package: Path) -> None:
    fields = run("dpkg-deb", "-f", package, "Package", "Version", "Depends")
    minor = run("/usr/bin/python3", "-c", "import sys; print(sys.version_info.minor)").strip()
    assert "Package: shoal-agent\nVersion: 0.1.0" in fields
    assert f"python3 (>= 3.{minor}), python3 (<< 3.{int(minor) + 1})" in fields
    listed = run("dpkg-deb", "-c", package)
    assert "./usr/bin/shoal-agent -> /opt/shoal-agent/bin/shoal-agent" in listed
    assert " root/root " in listed
    assert "__pycache__" not in listed
    assert "/test_data/" not in listed


def test_what_is_in_it_answers(unpacked: Path, tmp_path: Path) -> None:
    python = unpacked / HOME / "bin" / "python"
    bundle = write_tar(tmp_path / "quality.tar", *linear_bundle())
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{f"x{at}": float(at) for at in range(4)}]))
    asked = ("predict", "--bundle", bundle, "--input", rows)
    answer = json.loads(run(python, "-m", "shoal_agent.cli", *asked, PYTHONDONTWRITEBYTECODE="1"))
    assert answer["bundle"] == "quality:1.0.0"
    assert len(answer["predictions"]) == 1


def test_it_names_no_folder_of_the_machine_that_built_it(unpacked: Path, package: Path) -> None:
    home = unpacked / HOME
    assert (home / "bin" / "shoal-agent").read_text().startswith("#!/opt/shoal-agent/bin/python\n")
    ours = [home / "pyvenv.cfg", *(home / "lib").glob("*/site-packages/shoal_*/**/*")]
    ours += list((home / "lib").glob("*/site-packages/*.dist-info/*"))
    built = str(package.parent.parent).encode()
    texts = [path for path in ours if path.is_file()]
    assert len(texts) > 100
    assert [path for path in texts if built in path.read_bytes() or str(ROOT).encode() in path.read_bytes()] == []
