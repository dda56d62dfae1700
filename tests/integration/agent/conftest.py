"""Tiny real bundles and agents that have joined a simulated server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shoal_agent.adapters.enrolment import join
from shoal_agent.bootstrap import Overrides
from shoal_agent.settings import Settings
from shoal_agent.testing import SimulatedServer
from shoal_protocol.bundle.layout import golden_input, golden_output
from shoal_protocol.bundle.schema import (
    BundleInfo, FieldSpec, Golden, ModelSchema, OutputSpec, Runtime, TensorSpec, encode_document,
)  # fmt: skip
from shoal_protocol.bundle.tensors import encode_tensor

Files = dict[str, bytes]


def linear_model(weight: float) -> bytes:
    """An ONNX model: y = weight * x, x and y float32 [N, 2]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    w = helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def bundle_files(
    weight: float, *, version: str = "1.0", golden_weight: float | None = None, padding: int = 0, **runtime: Any
) -> Files:
    """The files of a bundle around `linear_model`; its golden rows are right unless told otherwise."""
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    info = BundleInfo(
        name="quality",
        version=version,
        task="regression",
        framework="test",
        golden=Golden(rows=3),
        runtime=Runtime(**runtime),
    )
    schema = ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
        inputs=(FieldSpec(name="x", dtype="float32", tensor="x"),),
        outputs=(OutputSpec(name="y", dtype="float32", shape=(None, 2), role="value"),),
    )
    expected = rows * np.float32(weight if golden_weight is None else golden_weight)
    files = {
        "bundle.json": encode_document(info),
        "schema.json": encode_document(schema),
        "model/model.onnx": linear_model(weight),
        golden_input(0): encode_tensor("x", rows),
        golden_output(0): encode_tensor("y", expected),
    }
    if padding:
        files["README.md"] = np.random.default_rng(int(weight * 10)).bytes(padding)
    return files


@pytest.fixture
def server() -> Iterator[SimulatedServer]:
    with SimulatedServer() as simulated:
        yield simulated


@pytest.fixture
def pack(server: SimulatedServer) -> Callable[..., str]:
    """Store and release a bundle at the server; returns its digest."""

    def make(weight: float, version: str, *, released: bool = True, **options: Any) -> str:
        digest = server.add_bundle(bundle_files(weight, version=version, **options))
        return server.release(digest, "quality", version) if released else digest

    return make


@pytest.fixture
def joined(server: SimulatedServer, tmp_path: Path) -> Path:
    """A state folder that has joined the server."""
    state = tmp_path / "state"
    join(server.url, server.join_token, state, name="dev-1", labels={"site": "bern"}, facts={}, clock=lambda: 2e9)
    return state


@pytest.fixture
def quick() -> Settings:
    """Settings of a test: short trials and waits."""
    return Settings(
        window_s=0.5,
        poll_s=0.2,
        trial_predictions=10,
        trial_seconds=0.5,
        resend_s=1.0,
        reconnect_max_s=0.3,
        retry_max_s=0.2,
    )


@pytest.fixture
def overrides() -> Overrides:
    return Overrides(preflight_turns=threading.Semaphore(1))


def wait_until(met: Callable[[], Any], *, timeout_s: float = 20.0, what: str = "") -> Any:
    """Wait for something that other threads do; fails with what was waited for."""
    waiter = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        value = met()
        if value:
            return value
        waiter.wait(0.02)
    pytest.fail(f"not within {timeout_s} s: {what or met}")


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until
