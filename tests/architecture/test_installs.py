"""No text installs our parts by name: on PyPI `shoal-agent` and `shoal-server` are other people's programs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = re.compile(r"pip install [^`\n]*?(?<![\w./@])shoal-(?:agent|server|converter|protocol)(?![\w.\[/-])")
WITH_EXTRA = re.compile(r"pip install [^`\n]*?(?<![\w./@])shoal-\w+\[")
EXPLAINED = "docs/how-to/install.md"  # says what not to type


def texts(*places: str) -> dict[str, str]:
    names = subprocess.run(
        ["git", "ls-files", "--", *places], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    readable = (".md", ".py", ".yml", ".yaml", ".toml", ".html", "Makefile", "Jenkinsfile", ".Containerfile")
    found = {name: (ROOT / name).read_text().replace("\\\n", " ") for name in names if name.endswith(readable)}
    return {name: text for name, text in found.items() if name != "tests/architecture/test_installs.py"}


def test_no_text_installs_a_part_by_its_name() -> None:
    found = {name: BY_NAME.findall(text) for name, text in texts(".").items() if name != EXPLAINED}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_recipes_that_begin_with_nothing_name_no_part_even_with_extras() -> None:
    """Where a part is installed already, its name with an extra leaves it as it is; a recipe has nothing yet."""
    found = {name: WITH_EXTRA.findall(text) for name, text in texts("deploy").items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_no_part_requires_another_whose_name_is_taken() -> None:
    for name, text in texts("*/pyproject.toml").items():
        required = re.findall(r'"(shoal-\w+)(?:\[[^"]*\])?==', text)
        assert set(required) <= {"shoal-protocol"}, name


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("pip install shoal-agent", True),
        ("pip install --find-links dist shoal-server", True),
        ("pip install 'shoal-converter[xgboost]'", False),
        ("pip install dist/shoal_protocol-*.whl dist/shoal_agent-*.whl", False),
        ("pip install ./shoal-agent/", False),
    ],
)
def test_what_counts_as_a_name(line: str, named: bool) -> None:
    assert bool(BY_NAME.search(line)) == named
