"""Variants: built, proven near, measured, and refused with figures where they gain nothing."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from shoal_agent.domain.fit import DeviceFacts, variant_for
from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.model import LoadedModel
from shoal_converter import pack
from shoal_converter.bundle import Bundle
from shoal_converter.cli import run
from shoal_converter.errors import VariantRefusedError
from shoal_converter.onnx_graph.smaller import operators, smaller
from shoal_converter.onnx_runtime import Runner
from shoal_converter.pack_options import PackOptions
from shoal_converter.variants import SMALLER, build_variants, here
from shoal_converter.verification import verify
from shoal_protocol.bundle.layout import MODEL_ONNX
from shoal_protocol.bundle.schema import OutputSpec

RNG = np.random.default_rng(4)
X = RNG.normal(size=(600, 16)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


@pytest.fixture(scope="module")
def network() -> MLPClassifier:
    with pytest.warns(ConvergenceWarning):
        return MLPClassifier((256, 128), max_iter=15, random_state=0).fit(X, Y)


@pytest.fixture(scope="module")
def packed(network: MLPClassifier) -> Bundle:
    return pack(network, sample=X, y=Y, tag="net:1.0", options=PackOptions(variants=("int8-dynamic", "fp16")))


def test_variants_are_layers_of_the_one_manifest_and_the_canonical_one_is_last(packed: Bundle) -> None:
    paths = [form.path for form in packed.info.variants]
    assert set(paths) == {"model/model.int8-dynamic.onnx", "model/model.fp16.onnx", MODEL_ONNX}
    assert paths[-1] == MODEL_ONNX
    for evidence in packed.measured["variants"]:
        assert evidence["size_ratio"] <= SMALLER
        assert evidence["parity"]["label_flips"] <= 6
    assert "MatMulInteger" in operators(packed.files["model/model.int8-dynamic.onnx"])
    assert "| model/model.fp16.onnx | float16 | any platform |" in packed.files["README.md"].decode()


def test_a_device_takes_the_first_that_fits_and_tests_it_by_its_own_tolerance(packed: Bundle, tmp_path: Path) -> None:
    packed.write(tmp_path / "net.tar")
    files = open_bundle(tmp_path / "net.tar")
    chosen = variant_for(packed.info, DeviceFacts(here(), "1.31.0", 1 << 30))
    assert chosen is not None
    assert chosen.path == packed.info.variants[0].path
    for form in packed.info.variants:
        loaded = LoadedModel.load(files, variant=form.path)
        assert loaded.self_test().passed, form.path
        assert not loaded.golden.atol_by_output or form.golden is not None


def test_verify_holds_each_variant_to_what_it_declares(packed: Bundle) -> None:
    assert all(check.ok for check in verify(packed))
    broken = onnx.load_model_from_string(packed.model)
    for constant in broken.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32 and values.ndim == 2:
            constant.CopyFrom(numpy_helper.from_array(-values, constant.name))
    files = {**packed.files, "model/model.fp16.onnx": broken.SerializeToString()}
    wrong = Bundle.build(files, config=packed.config, annotations={})
    assert [check.name for check in verify(wrong) if not check.ok] == ["variants"]


def test_the_same_variants_give_the_same_digest(network: MLPClassifier, packed: Bundle) -> None:
    again = pack(network, sample=X, y=Y, tag="net:1.0", options=PackOptions(variants=("fp16", "int8-dynamic")))
    same = {path for path in packed.files if packed.files[path] == again.files[path]}
    assert {"model/model.fp16.onnx", "model/model.int8-dynamic.onnx", "reference.json"} <= same


def test_trees_and_what_gains_nothing_are_refused_with_the_figures() -> None:
    forest = RandomForestClassifier(11, random_state=0).fit(X, Y)
    with pytest.raises(VariantRefusedError, match="a model of trees"):
        pack(forest, sample=X, tag="f:1", options=PackOptions(variants=("int8",)))
    linear = LogisticRegression().fit(X, Y)
    with pytest.raises(VariantRefusedError, match=r"no gain: one row takes .* times its bytes") as caught:
        pack(linear, sample=X, tag="l:1", options=PackOptions(variants=("fp16",)))
    assert caught.value.figures["size_ratio"] > SMALLER


def test_auto_keeps_what_pays_or_says_why_nothing_does() -> None:
    linear = LogisticRegression().fit(X, Y)
    bundle = pack(linear, sample=X, tag="l:1", options=PackOptions(variants=("auto",)))
    assert [form.path for form in bundle.info.variants] == [MODEL_ONNX]
    assert {entry["variant"] for entry in bundle.measured["refused"]} == {"fp16", "int8", "int8-dynamic"}


def convolutions() -> tuple[bytes, np.ndarray]:
    """A small convolutional network on 1 x 16 x 16 images, of 10 scores."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.2, (16, 1, 3, 3)),
        "w2": rng.normal(0, 0.1, (32, 16, 3, 3)),
        "w3": rng.normal(0, 0.05, (32, 10)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["value"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 16, 16])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 10])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), rng.normal(size=(200, 1, 16, 16)).astype(np.float32)


def test_convolutions_are_quantised_statically_and_never_dynamically() -> None:
    model, images = convolutions()
    outputs = (OutputSpec(name="value", dtype="float32", shape=(None, 10), role="value"),)
    answered = Runner(model).run({"x": images})
    seen, golden = ({"x": images}, answered), ({"x": images[:32]}, {"value": answered["value"][:32]})
    made = smaller(model, "int8", {"x": images})
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(made)
    error = np.abs(Runner(made).run({"x": images})["value"] - answered["value"]).max()
    assert error < 0.2 * answered["value"].std()
    with pytest.raises(VariantRefusedError, match="many times slower"):
        build_variants(model, ["int8-dynamic"], outputs=outputs, data=[seen], golden=golden)


def test_rows_beyond_what_calibration_saw_refuse_static_integers(network: MLPClassifier) -> None:
    far = np.vstack([X, 40 * X[:20]])
    options = PackOptions(variants=("int8",), validation=far)
    with pytest.raises(VariantRefusedError, match="not near enough on the validation data"):
        pack(network, sample=X, tag="net:1", options=options)


def test_the_command_tells_what_was_refused_with_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "m.joblib")
    np.savez(tmp_path / "rows.npz", X=X, y=Y)
    command = ["pack", str(tmp_path / "m.joblib"), "--trust", "--sample", str(tmp_path / "rows.npz"), "-t", "l:1"]
    assert run([*command, "--variant", "fp16", "-o", str(tmp_path / "out.tar"), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "variant"
    assert answer["refused"][0]["figures"]["size_ratio"] > SMALLER
    assert not (tmp_path / "out.tar").exists()
