"""What packing costs: a scaler and a forest of 200 trees, against the bare conversion and one pass over the sample.

Floor: ``skl2onnx.to_onnx`` and one onnxruntime pass over the same 10,000 rows, which anybody would do; ours also
proves, profiles, ranks features and measures. Both on the clock of the whole process and its children.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

import numpy as np

from frame import Row, compared, run

ROWS, FEATURES, TREES, DEPTH, REPEATS = 10_000, 20, 200, 12, 3


def rows() -> Iterator[Row]:
    from sklearn.datasets import make_classification  # noqa: PLC0415 - beside the rest of training
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    x, y = make_classification(ROWS, FEATURES, n_informative=10, random_state=0)
    x = x.astype(np.float32)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(TREES, max_depth=DEPTH, random_state=0)).fit(x, y)
    ours, bare = [], []
    for _ in range(REPEATS):
        bare.append(_cpu_s(lambda: _bare(model, x)))
        ours.append(_cpu_s(lambda: _pack(model, x, y)))
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    floor = statistics.median(bare)
    yield compared("pack forest 200x12", statistics.median(ours), "s", floor=floor, ratio=ratio, at_most=2.0)


def _bare(model: object, x: np.ndarray) -> None:
    import onnxruntime  # noqa: PLC0415 - heavy
    from skl2onnx import to_onnx  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    raw = to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString()
    session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: x})


def _pack(model: object, x: np.ndarray, y: np.ndarray) -> None:
    from shoal_converter import pack  # noqa: PLC0415 - heavy

    pack(model, sample=x, y=y, tag="forest:1.0.0")


def _cpu_s(work: object) -> float:
    """Return the CPU seconds that a piece of work and its children took."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    run("pack", rows())
