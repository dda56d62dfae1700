"""Networks of PyTorch are exported for any number of rows and answer as they do eagerly, or are refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from shoal_converter import Bundle, UnsupportedModelError, pack
from shoal_converter.errors import EXIT_OK, SampleError

torch: Any = import_module("torch")  # by name: mypy and the other tests do without it

IMAGES = np.random.default_rng(0).random((30, 3, 16, 16)).astype(np.float32)


def test_a_network_is_exported_in_eval_mode_and_left_as_it_was() -> None:
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(784, 3), nn.Softmax(-1)
    )
    bundle = pack(net, sample=IMAGES, tag="net:1.0.0")
    assert net.training
    assert bundle.schema.tensors[0].shape == (None, 3, 16, 16)
    assert bundle.schema.outputs[0].role == "probabilities"
    assert bundle.info.framework == "pytorch"
    assert bundle.info.onnx["ir_version"] <= 10


def test_several_arguments_are_fed_by_name() -> None:
    class Two(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.last, self.codes = torch.nn.Linear(3, 1), torch.nn.Embedding(5, 3)

        def forward(self, code: Any, values: Any) -> Any:
            return self.last(self.codes(code) + values)

    rows = {"values": np.random.default_rng(1).random((50, 3)), "code": np.arange(50) % 5}
    bundle = pack(Two(), sample=rows, tag="net:1.0.0")
    assert {tensor.name: tensor.dtype for tensor in bundle.schema.tensors} == {"code": "int64", "values": "float32"}
    assert bundle.info.task == "regression"


def test_a_branch_on_values_is_refused_with_the_reason() -> None:
    class Branch(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedModelError, match="torch.export can't trace it"):
        pack(Branch(), sample=IMAGES, tag="net:1.0.0")


def test_one_row_is_too_few_to_tell_that_their_number_is_free() -> None:
    with pytest.raises(SampleError, match="two rows"):
        pack(torch.nn.Flatten(), sample=IMAGES[:1], tag="net:1.0.0")


def test_a_pickle_of_a_whole_network_is_exported_on_the_sample(shoal_convert: Any, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    torch.save(net, tmp_path / "net.pth")
    rows = np.random.default_rng(0).normal(size=(40, 3))
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", header="a,b,c", comments="")
    code, _, err = shoal_convert("pack", "net.pth", "--trust", "--sample", "rows.csv", "-t", "net:1.0.0")
    assert code == EXIT_OK, err
    raw = Bundle.open(tmp_path / "net-1.0.0.tar").files["model/model.onnx"]
    session = ort.InferenceSession(raw)
    found = session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(torch.from_numpy(rows).float()), rtol=1e-4, atol=1e-5)
