"""Pack a pipeline with a mixed data frame, look at the bundle, and use it as a device would.

    python examples/pack_pipeline.py [FOLDER]

Push it with SHOAL_URL and SHOAL_TOKEN set; without them it stays on disk.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from shoal_converter import UnsupportedModelError, pack
from shoal_converter.verification import verify


def machines(rows: int = 2000, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Make readings of machines, and whether each failed within a week."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "temperature": rng.normal(60, 8, rows).round(1),
            "vibration": rng.lognormal(0, 0.4, rows).round(3),
            "age": rng.integers(0, 15, rows),
            "maker": rng.choice(["acme", "bolt", "cog"], rows),
        }
    )
    risk = (frame["temperature"] - 60) / 8 + frame["vibration"] + 0.1 * frame["age"] + 0.5 * (frame["maker"] == "cog")
    frame.loc[rng.random(rows) < 0.05, "vibration"] = np.nan
    return frame, (risk + rng.normal(0, 0.3, rows) > 2.5).map({True: "fails", False: "runs"})


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    frame, outcome = machines()
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["temperature", "vibration", "age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["maker"]),
    )
    model = make_pipeline(columns, RandomForestClassifier(100, max_depth=8, random_state=0)).fit(frame, outcome)

    try:
        bundle = pack(model, sample=frame, y=outcome, tag="failures:1.0.0", progress=print)
    except UnsupportedModelError as refused:
        sys.exit(f"{refused.step} can't be exported: {refused.why}; {refused.way_round}")

    print()
    for name, value in bundle.summary():
        print(f"{name:12} {value}")
    print()
    for check in verify(bundle):
        print(f"{'ok' if check.ok else 'FAILED':7} {check.name}: {check.detail}")

    path = bundle.write(folder / "failures-1.0.0.tar", force=True)
    print(f"\nwritten to {path}; try: shoal-convert predict {path}")
    if os.environ.get("SHOAL_URL"):
        pushed = bundle.push(os.environ["SHOAL_URL"], token=os.environ.get("SHOAL_TOKEN"), progress=print)
        print(f"signed by {pushed.signed_by or 'nobody'}")


if __name__ == "__main__":
    main()
