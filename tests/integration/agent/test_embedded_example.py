"""The example program that carries the agent does what its page says."""

import json
import subprocess
import sys
from pathlib import Path

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
