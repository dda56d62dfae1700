"""The example program that carries the agent does what its page says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fixtures_models import linear_bundle, write_tar

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "embedded_agent.py"


def test_rows_in_answers_out(tmp_path: Path) -> None:
    digest, blobs = linear_bundle()
    bundle = write_tar(tmp_path / "quality.tar", digest, blobs)
    good = {f"x{at}": at for at in range(4)}
    lines = [json.dumps(good), json.dumps({**good, "x2": "a"}), "{", json.dumps({**good, "x3": None})]
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--bundle", str(bundle)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second, third, fourth = map(json.loads, done.stdout.splitlines())
    assert (first["bundle"], first["digest"]) == ("quality:1.0.0", digest)
    assert set(first["outputs"]) == {"label", "probabilities"}
    assert second["faults"] == [{"field": "x2", "expected": "numbers", "got": "'a' (text)", "row": 0}]
    assert third["error"].startswith("no JSON")
    assert "outputs" in fourth


def test_classes_may_be_texts(tmp_path: Path) -> None:
    class Said(dict[str, Any]):
        bundle, digest = "quality:1.0.0", "sha256:00"

    said = Said(label=np.array(["good"], dtype=object), probabilities=np.array([[0.25, 0.75]], dtype=np.float32))
    model = SimpleNamespace(predict_rows=lambda _rows: said)
    assert runpy.run_path(str(EXAMPLE))["answer"](model, "{}")["outputs"] == {
        "label": "good",
        "probabilities": [0.25, 0.75],
    }


def test_a_folder_of_no_device_is_told_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--state", str(tmp_path)],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path} belongs to no device yet")
