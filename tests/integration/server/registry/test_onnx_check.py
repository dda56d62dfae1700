"""The child process that reads models, against files that want to hurt it."""

import sys
from pathlib import Path

import pytest

from shoal_server.registry.onnx_check import Limits, ModelFacts, OnnxChecker
from shoal_server.registry.refusals import Fault
from shoal_server.testing.bundles import linear_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model())
    return path


def test_a_sound_model_says_what_it_is(model: Path) -> None:
    assert OnnxChecker().check(model) == ModelFacts(["x"], ["value"], 8, {"ai.onnx": 17})


def test_a_model_that_needs_too_much_memory_is_a_fault(model: Path) -> None:
    found = OnnxChecker(Limits(base_memory=24 * 1024**2)).check(model)
    assert isinstance(found, Fault)
    assert found.rule in {"onnx_memory", "onnx_crash"}


def _with_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Replace the interpreter by a program that does `code`, whatever it is asked."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.parametrize(
    ("code", "limits", "rule"),
    [
        ("while True: pass", Limits(wall_s=0.5), "onnx_time"),
        ("import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass", Limits(), "onnx_time"),
        ("import os; os.abort()", Limits(), "onnx_crash"),
        ("print('not JSON')", Limits(), "onnx_crash"),
    ],
)
def test_a_child_that_hangs_or_dies_is_a_fault_of_the_model(
    model: Path, monkeypatch: pytest.MonkeyPatch, code: str, limits: Limits, rule: str
) -> None:
    _with_child(monkeypatch, model.parent, code)
    found = OnnxChecker(limits).check(model)
    assert isinstance(found, Fault)
    assert found.rule == rule
