"""A seeded sweep over models of every framework: converted, packed, and asked about rows that nobody showed before.

    make campaign NAME=convert POINTS=60 SEED=7
    .venv/bin/python tests/campaigns/convert.py --points 20 --only torch,keras

Each point draws a framework, a model and data: estimators behind columns of numbers, words, flags and gaps of every
kind; boosting models of awkward settings; networks; models that a real MLflow kept. It is exact, refused with a reason,
or wrong, and one wrong fails the sweep. Answers that are a thousandth off must be caught, or the sweep proves nothing.
Heavy frameworks run in environments of their own (`.venv-campaign/`), which the first run makes.

Writes ``benchmarks/results/campaign-convert.json`` after every framework; a sweep of the same seed and points that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.campaigns.convert_environments import ENVIRONMENTS, ROOT

RESULT = ROOT / "benchmarks" / "results" / "campaign-convert.json"
_WEIGHTS = {"sklearn": 5, "boosting": 3, "catboost": 2, "torch": 1, "keras": 1, "mlflow": 1}


def main() -> int:
    """Run the sweep; 0 when nothing is silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(ENVIRONMENTS), help="frameworks, by commas")
    said = parser.parse_args()
    only = [name for name in ENVIRONMENTS if name in said.only.split(",")]
    done = _resumed(said.seed, said.points)
    whole = sum(_WEIGHTS[name] for name in only)
    for name in only:
        if name in done:
            continue
        share = max(1, round(said.points * _WEIGHTS[name] / whole))
        done[name] = _ran(name, share, said.seed)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"seed": said.seed, "points": said.points, "done": done}, indent=1) + "\n")
    return report({name: done[name] for name in only})


def _ran(name: str, points: int, seed: int) -> list[dict[str, Any]]:
    """Return what became of a framework's points; the flawed converter's is the first."""
    try:
        python = ENVIRONMENTS[name].python()
    except (subprocess.CalledProcessError, OSError) as error:
        return [{"framework": name, "case": "environment", "outcome": f"absent: {error}"}]
    command = [python, "-m", "tests.campaigns.convert_points", name, str(points), str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    found = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith('{"framework"'):
                found.append(json.loads(line))
                print(f"{name}: {found[-1]['case']}: {found[-1]['outcome'][:150]}", flush=True)
    if child.returncode:
        found.append({"framework": name, "case": "process", "outcome": f"broken: exit code {child.returncode}"})
    return found


def report(done: dict[str, list[dict[str, Any]]]) -> int:
    """Print a table of what became of the points; return the exit code."""
    bad = []
    print(f"\n{'FRAMEWORK':<12}{'EXACT':>7}{'REFUSED':>9}{'WRONG':>7}{'BROKEN':>8}")
    for name, points in done.items():
        flawed, real = points[:1], points[1:]
        counted = Counter(point["outcome"].partition(":")[0] for point in real)
        broken = sum(count for word, count in counted.items() if word not in {"exact", "refused", "WRONG"})
        print(f"{name:<12}{counted['exact']:>7}{counted['refused']:>9}{counted['WRONG']:>7}{broken:>8}")
        bad += [point for point in real if not point["outcome"].startswith(("exact", "refused"))]
        if not (flawed and flawed[0]["outcome"].startswith("WRONG")):
            bad += flawed or [{"framework": name, "case": "nothing", "outcome": "broken: no point was tried"}]
    for point in bad:
        print(f"{point['framework']}: {point['case']}: {point['outcome']}")
    return 1 if bad else 0


def _resumed(seed: int, points: int) -> dict[str, list[dict[str, Any]]]:
    try:
        known = json.loads(RESULT.read_text())
    except (OSError, ValueError):
        return {}
    if (known.get("seed"), known.get("points")) != (seed, points) or len(known["done"]) == len(ENVIRONMENTS):
        return {}
    kept: dict[str, list[dict[str, Any]]] = known["done"]
    return {name: found for name, found in kept.items() if len(found) > 1 and found[-1]["case"] != "process"}


if __name__ == "__main__":
    sys.exit(main())
