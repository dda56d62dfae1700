"""ONNX models as sources: kept as they answer, brought to what devices run, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx as sklearn_to_onnx
from sklearn.linear_model import LogisticRegression

from shoal_converter import Bundle, PackOptions, UnsupportedModelError, pack, to_onnx
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import (
    EXIT_PARITY,
    EXIT_UNSUPPORTED,
    EXIT_USAGE,
    MemoryBudgetError,
    ParityError,
    SampleError,
    SourceError,
)
from shoal_converter.sources.onnx_source import read_onnx
from shoal_converter.sources.tensor_model import tensor_model
from shoal_converter.tensor_proof import converted
from shoal_converter.verification import verify

ROWS = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(np.int64)


def graph(
    nodes: list[onnx.NodeProto],
    *,
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    domains: dict[str, int] | None = None,
    ir: int = 8,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in (constants or {}).items()],
    )
    sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(n, v) for n, v in (domains or {}).items())]
    return helper.make_model(made, opset_imports=sets, ir_version=ir, producer_name="anybody")


def scaled(opset: int = 17, ir: int = 8, operator: str = "Mul", rows: Any = "N") -> onnx.ModelProto:
    return graph(
        [helper.make_node(operator, ["rows", "w"], ["answer"])],
        inputs={"rows": [rows, 4]},
        outputs={"answer": [rows, 4]},
        constants={"w": np.arange(1, 5, dtype=np.float32)},
        opset=opset,
        ir=ir,
    )


def test_names_are_kept_and_a_map_of_probabilities_becomes_a_tensor() -> None:
    texts = np.where(LABELS, "good", "bad")
    model = sklearn_to_onnx(LogisticRegression().fit(ROWS, texts), ROWS[:1])
    assert any(node.op_type == "ZipMap" for node in model.graph.node)
    bundle = pack(model, sample=ROWS, y=texts, tag="iris:1.0.0")
    label, probabilities = bundle.schema.outputs
    assert (label.name, label.role, label.classes) == ("output_label", "label", ("bad", "good"))
    assert (probabilities.name, probabilities.role, probabilities.shape) == (
        "output_probability",
        "probabilities",
        (None, 2),
    )
    assert [tensor.name for tensor in bundle.schema.tensors] == ["X"]
    assert bundle.info.task == "classification"
    assert bundle.reference is not None
    assert bundle.reference.metrics["accuracy"] > 0.9
    assert bundle.reference.metric == "accuracy"
    assert {stream.name for stream in bundle.reference.spec.streams} >= {"label", "confidence", "score", "X0"}
    assert all(check.ok for check in verify(bundle)), verify(bundle)


def test_packing_again_gives_the_same_bundle(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(scaled(), path)
    packed = [
        pack(source, sample=ROWS, tag="m:1.0.0").digest for source in (path, str(path), scaled(), path.read_bytes())
    ]
    assert len(set(packed)) == 1


def test_several_inputs_of_any_rank_are_fed_by_name() -> None:
    model = graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Concat", ["flat", "extra"], ["both"], axis=1),
            helper.make_node("Softmax", ["both"], ["scores"], axis=1),
        ],
        inputs={"image": ["N", 3, 8, 8], "extra": ["N", 2]},
        outputs={"scores": ["N", 5]},
    )
    rng = np.random.default_rng(2)
    sample = {"image": rng.random((70, 3, 8, 8)), "extra": rng.random((70, 2))}
    bundle = pack(model, sample=sample, tag="camera:1.0.0")
    assert [tensor.shape for tensor in bundle.schema.tensors] == [(None, 3, 8, 8), (None, 2)]
    assert [(field.name, field.column) for field in bundle.schema.inputs] == [
        ("image", None),
        ("extra0", 0),
        ("extra1", 1),
    ]
    assert bundle.schema.outputs[0].role == "probabilities"
    assert bundle.reference is not None
    assert "image.brightness" in {stream.name for stream in bundle.reference.spec.streams}
    assert all(check.ok for check in verify(bundle)), verify(bundle)


@pytest.mark.parametrize(("opset", "ir"), [(25, 12), (24, 11), (22, 10)])
def test_newer_sets_are_brought_to_what_devices_run(opset: int, ir: int) -> None:
    made = graph(
        [
            helper.make_node("Reshape", ["rows", "shape"], ["flat"]),
            helper.make_node("Elu", ["flat"], ["bent"]),
            helper.make_node("Mul", ["bent", "w"], ["answer"]),
        ],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 4]},
        constants={"w": np.float32([2, 3, 4, 5]), "shape": np.int64([-1, 4])},
        opset=opset,
        ir=ir,
    )
    found = onnx.load_model_from_string(to_onnx(made, ROWS))
    assert found.ir_version <= 10
    assert found.opset_import[0].version == 21


def test_rows_may_be_fixed_in_the_file_and_are_free_in_the_bundle() -> None:
    model = read_onnx(scaled(rows=1))
    assert model.inputs[0].shape == (None, 4)
    assert pack(scaled(rows=7), sample=ROWS, tag="m:1.0.0").schema.tensors[0].shape == (None, 4)


def test_an_operator_of_somebody_elses_is_refused_by_name() -> None:
    model = graph(
        [helper.make_node("Wizardry", ["rows"], ["answer"], domain="acme.ops")],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 4]},
        domains={"acme.ops": 1},
    )
    with pytest.raises(UnsupportedModelError, match="Wizardry") as caught:
        to_onnx(model, ROWS)
    assert "standard ONNX operators" in caught.value.way_round


def test_what_no_older_set_can_say_is_refused_by_name() -> None:
    model = graph(
        [helper.make_node("Swish", ["rows"], ["answer"])],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 4]},
        opset=24,
    )
    with pytest.raises(UnsupportedModelError, match="Swish") as caught:
        to_onnx(model, ROWS)
    assert "opset 21" in caught.value.way_round


def test_answers_that_depend_on_the_rows_beside_are_refused() -> None:
    model = graph(
        [
            helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["rows", "mean"], ["answer"]),
        ],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 4]},
    )
    with pytest.raises(UnsupportedModelError, match="depends on the rows beside it"):
        to_onnx(model, ROWS)


def test_chance_in_the_graph_is_refused() -> None:
    model = graph(
        [helper.make_node("RandomNormalLike", ["rows"], ["answer"])],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 4]},
    )
    with pytest.raises(UnsupportedModelError, match="at random"):
        to_onnx(model, ROWS)


def test_a_graph_that_answers_otherwise_is_no_bundle() -> None:
    model = tensor_model(scaled(), framework="onnx", run=lambda _: lambda rows: {"answer": rows["rows"] * 2})
    with pytest.raises(ParityError, match="differs from the onnx model as given"):
        converted(model, ROWS, tolerance=Tolerance())


def test_validation_data_is_proven_too() -> None:
    from shoal_converter.pack_options import PackOptions

    options = PackOptions(validation=ROWS[:20] * 2, validation_y=ROWS[:20, 0])
    bundle = pack(scaled(), sample=ROWS, tag="m:1.0.0", options=options)
    assert bundle.parity is not None
    assert bundle.parity["validation"]["rows"] == 20


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (None, "a sample is required"),
        (ROWS[:, :3], r"has shape \(60, 3\), the model takes \(rows, 4\)"),
        ({"cols": ROWS, "more": ROWS}, "missing: rows"),
        (np.array([["a"] * 4]), "takes float32"),
        (ROWS[:0], "numbers of rows"),
    ],
)
def test_a_sample_that_does_not_fit_says_what_would(sample: Any, said: str) -> None:
    with pytest.raises(SampleError, match=said):
        pack(scaled(), sample=sample, tag="m:1.0.0")


def test_constants_in_a_file_beside_are_embedded_or_missed_by_name(tmp_path: Path) -> None:
    big = graph(
        [helper.make_node("MatMul", ["rows", "w"], ["answer"])],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 400]},
        constants={"w": np.ones((4, 400), dtype=np.float32)},
    )
    path = tmp_path / "model.onnx"
    onnx.save(big, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert len(onnx.load_model_from_string(to_onnx(path, ROWS)).graph.initializer[0].raw_data) == 6400
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SourceError, match="files beside it"):
        to_onnx(path, ROWS)


def test_constants_outside_the_models_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(scaled(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").rename(tmp_path / "w.bin")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../w.bin"
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="files beside it"):
        read_onnx(folder / "m.onnx")


def test_the_command_packs_a_file(shoal_convert: Any, tmp_path: Path) -> None:
    onnx.save(sklearn_to_onnx(LogisticRegression().fit(ROWS, LABELS), ROWS[:1]), tmp_path / "m.onnx")
    np.savez(tmp_path / "rows.npz", X=ROWS, y=LABELS)
    code, out, err = shoal_convert("pack", "m.onnx", "--sample", "rows.npz", "-t", "iris:1.0.0", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["accuracy"] > 0.9
    assert Bundle.open(tmp_path / "iris-1.0.0.tar").info.framework == "scikit-learn"


@pytest.mark.parametrize(
    ("content", "code"), [(b"no model", EXIT_USAGE), (None, EXIT_USAGE), ("foreign", EXIT_UNSUPPORTED)]
)
def test_the_command_tells_what_is_wrong(shoal_convert: Any, tmp_path: Path, content: Any, code: int) -> None:
    np.savez(tmp_path / "rows.npz", rows=ROWS)
    if content == "foreign":
        content = graph(
            [helper.make_node("Wizardry", ["rows"], ["answer"], domain="acme.ops")],
            inputs={"rows": ["N", 4]},
            outputs={"answer": ["N", 4]},
            domains={"acme.ops": 1},
        ).SerializeToString()
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    found, _, err = shoal_convert("pack", "m.onnx", "--sample", "rows.npz", "-t", "m:1.0.0")
    assert found == code, err
    assert found != EXIT_PARITY
    assert "m.onnx" in err or "Wizardry" in err


def test_a_model_that_devices_would_refuse_for_its_memory_declares_it() -> None:
    wide = graph(
        [
            helper.make_node("Tile", ["rows", "often"], ["t"]),
            helper.make_node("ReduceMax", ["t"], ["answer"], axes=[1]),
        ],
        inputs={"rows": ["N", 4]},
        outputs={"answer": ["N", 1]},
        constants={"often": np.array([1, 1 << 17], dtype=np.int64)},
    )
    with pytest.raises(MemoryBudgetError, match=r"more than the 64 MB .* declares none") as told:
        pack(wide, sample=ROWS, tag="wide:1.0.0")
    assert "--memory-budget" in told.value.hint
    bundle = pack(wide, sample=ROWS, tag="wide:1.0.0", options=PackOptions(memory_budget_bytes=1 << 29))
    assert bundle.info.runtime.memory_budget_bytes == 1 << 29
