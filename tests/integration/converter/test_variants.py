"""Variants: built, proven near, measured, and refused with figures where they gain nothing."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import joblib
import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from fixtures_broker import eventually
from shoal_agent import Agent
from shoal_agent.adapters.enrolment import join
from shoal_agent.cli import main as shoal_agent
from shoal_agent.domain.fit import DeviceFacts, variant_for
from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.settings import Settings
from shoal_converter import pack
from shoal_converter.bundle import Bundle
from shoal_converter.cli import run
from shoal_converter.errors import VariantRefusedError
from shoal_converter.onnx_graph.smaller import operators, smaller
from shoal_converter.onnx_runtime import Runner
from shoal_converter.pack_options import PackOptions
from shoal_converter.pushing import push
from shoal_converter.variants import SMALLER, build_variants, here
from shoal_converter.verification import verify
from shoal_protocol.bundle.layout import BUNDLE_JSON, MODEL_ONNX
from shoal_protocol.bundle.schema import OutputSpec, encode_document
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.access import Role
from shoal_server.bootstrap import Server
from shoal_server.fleet import assignments
from shoal_server.storage.settings import Pace
from shoal_server.telemetry.store import windows
from shoal_server.testing import api_token, settings_in

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
    files = {**packed.files, "model/model.fp16.onnx": negated(packed.model)}
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


class Fleet:
    """A whole server, and whole agents whose machines are what the test says."""

    def __init__(self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self._folder, self._monkeypatch = server, folder, monkeypatch
        self._agents: list[Agent] = []
        services = server.services
        self.api = httpx2.Client(
            base_url=server.runtime.url,
            headers={"authorization": f"Bearer {api_token(services, Role.ADMIN)}"},
            trust_env=False,
            timeout=60.0,
        )

    def agent(self, name: str, machine: str, **changes: Any) -> Agent:
        """Let a device join; `machine` is what `uname -m` says there."""
        token = self.api.post("/api/v1/join-tokens", json={"uses": 1}).json()["token"]
        join(self.server.runtime.url, token, self._folder / name, name=name, labels={}, facts={}, clock=time.time)
        settings = Settings(window_s=1.0, poll_s=0.1, trial_predictions=1, trial_seconds=0.1, listen="none", **changes)
        agent = Agent(self._folder / name, settings)
        with self._monkeypatch.context() as here:
            here.setattr(platform, "machine", lambda: machine)
            agent.start()
        self._agents.append(agent)
        return agent

    def want(self, bundle: Bundle, *devices: str) -> None:
        """Assign a bundle."""
        services = self.server.services
        with services.database.write() as session:
            for device in devices:
                target = SlotTarget(digest=bundle.digest, name=str(bundle.ref))
                assignments.assign(session, device, "net", target, now=services.clock())
        services.signals.bump("desired")

    def reported(self, device: str) -> dict[str, Any]:
        """Return what the server knows of the device's slot."""
        slots: dict[str, Any] = self.api.get(f"/api/v1/devices/{device}").json()["slots"]
        return slots.get("net", {})

    def stop(self) -> None:
        """Stop the devices, which close their windows."""
        while self._agents:
            self._agents.pop().stop()


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    server = Server(settings_in(tmp_path / "data", pace=Pace(publisher_s=0.05), compress=False))
    server.start()
    found = Fleet(server, tmp_path, monkeypatch)
    yield found
    found.stop()
    found.api.close()
    server.stop()


def rebuilt(
    bundle: Bundle, version: str, *, platforms: Mapping[str, str], files: Mapping[str, bytes] | None = None
) -> Bundle:
    """Return the bundle under another version, with variants that say where they run best."""
    forms = tuple(msgspec.structs.replace(one, platform=platforms.get(one.path)) for one in bundle.info.variants)
    info = msgspec.structs.replace(bundle.info, version=version, variants=forms)
    changed = {**bundle.files, BUNDLE_JSON: encode_document(info), **(files or {})}
    return Bundle.build(changed, config=bundle.config, annotations={})


def test_each_device_runs_tests_and_tells_the_variant_that_fits_it(
    packed: Bundle, fleet: Fleet, tmp_path: Path
) -> None:
    fast, small = (form.path for form in packed.info.variants[:2])
    expected = {"edge-x86": fast, "edge-arm": small}
    first = rebuilt(packed, "1.0", platforms={fast: "linux/amd64"})
    url, token = fleet.server.runtime.url, api_token(fleet.server.services, Role.RELEASER, name="ci")
    assert push(first, url, token=token).digest == first.digest
    agents = {"edge-x86": fleet.agent("edge-x86", "x86_64"), "edge-arm": fleet.agent("edge-arm", "aarch64")}
    fleet.want(first, *agents)
    for name, agent in agents.items():
        slot = lambda agent=agent: agent.status()["slots"].get("net", {})  # noqa: E731 - asked again
        eventually(lambda slot=slot: slot().get("active") == first.digest, within_s=120.0, what=f"{name}: {slot()}")
        agent.model("net").wait(60.0)
        answer = agent.model("net").predict({"x": X[:40]})
        assert np.mean(answer["label"] == first_labels(packed, X[:40])) > 0.9
        eventually(
            lambda n=name, s=slot: s()["variant"] == expected[n], within_s=60.0, what=f"{expected[name]}: {slot()}"
        )
        eventually(lambda n=name: fleet.reported(n).get("variant") == expected[n], within_s=60.0, what="the report")
        page = fleet.api.get(f"/devices/{name}", headers={"accept": "text/html"}).text
        assert expected[name] in page
        eventually(lambda n=name: f"variant: {expected[n]}" in told_by_status(tmp_path / n), what="its status")
        held = {path.name for path in (tmp_path / name).rglob("*") if path.is_file()}
        there = {p for p, layer in first.manifest.files().items() if layer.digest.removeprefix("sha256:") in held}
        assert there & {form.path for form in first.info.variants} == {expected[name]}  # no other was fetched
    environment = os.environ | {"SHOAL_URL": url, "SHOAL_TOKEN": token}
    shoalctl = [sys.executable, "-c", "from shoal_server.ctl.cli import main; main()", "device", "show", "edge-arm"]
    shown = subprocess.run(shoalctl, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"net:1.0 in the variant {small}" in shown
    spoilt = rebuilt(packed, "1.1", platforms={fast: "linux/amd64"}, files={fast: negated(packed.model)})
    push(spoilt, url, token=token)
    fleet.want(spoilt, *agents)
    # Only where the spoilt variant would answer does the self-test fail: it tests what is to be activated.
    eventually(
        lambda: agents["edge-arm"].status()["slots"]["net"]["active"] == spoilt.digest, within_s=120.0, what="arm: 1.1"
    )
    eventually(lambda: agents["edge-x86"].status()["slots"]["net"]["error"], within_s=120.0, what="x86 rejects 1.1")
    state = agents["edge-x86"].status()["slots"]["net"]
    assert (state["active"], state["variant"], state["error"]["code"]) == (first.digest, fast, "preflight_golden")
    meant = {("edge-x86", first.digest, fast), ("edge-arm", first.digest, small)}
    eventually(lambda: meant <= windows_of(fleet.server), within_s=60.0, what="windows that tell the variant")


def test_a_device_whose_providers_run_no_variant_says_so(packed: Bundle, fleet: Fleet) -> None:
    push(packed, fleet.server.runtime.url, token=api_token(fleet.server.services, Role.RELEASER, name="ci"))
    agent = fleet.agent("edge-gpu", "x86_64", providers=("CUDAExecutionProvider",))
    fleet.want(packed, "edge-gpu")
    slot = lambda: agent.status()["slots"].get("net", {})  # noqa: E731 - asked again
    eventually(lambda: slot().get("error"), within_s=60.0, what="a fault")
    assert slot()["active"] is None
    assert "no variant runs on linux/amd64 with providers = CUDAExecutionProvider" in slot()["error"]["message"]
    eventually(lambda: fleet.reported("edge-gpu").get("error"), within_s=60.0, what="the report")


def told_by_status(folder: Path) -> str:
    """Return what the command says of an agent at work, which leaves its status there at the end of each turn."""
    with redirect_stdout(StringIO()) as said:
        assert shoal_agent(["status", "--state", str(folder)]) == 0
    return said.getvalue()


def first_labels(bundle: Bundle, rows: np.ndarray) -> np.ndarray:
    """Return what the canonical model answers."""
    return Runner(bundle.model).run({"x": rows})["label"]


def negated(model: bytes) -> bytes:
    """Return a model with the opposite weights."""
    found = onnx.load_model_from_string(model)
    for constant in found.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32 and values.ndim == 2:
            constant.CopyFrom(numpy_helper.from_array(-values, constant.name))
    return found.SerializeToString()


def windows_of(server: Server) -> set[tuple[str, str, str]]:
    """Return device, digest and variant of the windows that the server has."""
    with server.services.database.read() as session:
        found = windows(session, slot="net", start_ms=0, end_ms=2**52)
    return {(one.device, one.digest, one.message.variant) for one in found}
