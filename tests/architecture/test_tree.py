"""Rules of the tree that are easier to hold by a machine than by memory."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["protocol", "converter", "server", "agent"]
SOURCES = sorted(path for part in PARTS for path in (ROOT / part / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MARKDOWN = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def test_imports_point_the_way_the_architecture_says() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_no_file_is_longer_than_600_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in [*SOURCES, *TESTS] if (n := p.read_text().count("\n")) > 600}
    assert long == {}


def functions(path: Path) -> list[tuple[str, int, int]]:
    tree = ast.parse(path.read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(f.name, min([f.lineno, *(d.lineno for d in f.decorator_list)]), f.end_lineno or 0) for f in found]


def test_a_long_function_says_why_above_itself() -> None:
    unexplained = []
    for path in SOURCES:
        lines = path.read_text().splitlines()
        for name, start, end in functions(path):
            if end - start >= 60 and not lines[start - 2].lstrip().startswith("#"):
                unexplained.append(f"{path.relative_to(ROOT)}:{start} {name}")
    assert unexplained == []


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc", "manager"])
def test_no_module_is_named_by_nothing(word: str) -> None:
    assert [p for p in SOURCES if word in {p.stem, p.parent.name}] == []


def test_every_module_says_what_it_owns() -> None:
    silent = [
        p for p in SOURCES if "migrations/versions" not in str(p) and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert [str(p.relative_to(ROOT)) for p in silent] == []


def test_every_test_asserts_something() -> None:
    hollow = []
    for path in (path for path in TESTS if path.name.startswith("test_")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                words |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                asserts = any(isinstance(n, ast.Assert) for n in ast.walk(node))
                if not asserts and not any(re.search("raises|assert|expect|check", word) for word in words):
                    hollow.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert hollow == []


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    left = [str(p.relative_to(ROOT)) for p in [*SOURCES, *TESTS] if p != Path(__file__) and words.search(p.read_text())]
    assert left == []


def test_links_between_documents_lead_somewhere() -> None:
    links = [(p, target) for p in MARKDOWN for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", p.read_text())]
    local = [(p, target) for p, target in links if not re.match(r"[a-z]+:", target)]
    assert [f"{p.relative_to(ROOT)} -> {target}" for p, target in local if not (p.parent / target).exists()] == []


def test_paths_that_architecture_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:protocol|converter|server|agent|tests|benchmarks|docs|deploy)/[\w./-]+)`", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
