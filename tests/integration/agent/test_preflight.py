"""Self-tests in real children: right and wrong golden rows, memory bombs, loops, crashes."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import shoal_agent.adapters.preflight as preflight_module
from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.preflight import ChildPreflight
from shoal_agent.errors import CancelledError
from shoal_agent.ports import PreflightLimits
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.layout import golden_input, golden_output
from shoal_protocol.bundle.manifest import encode_manifest
from shoal_protocol.bundle.schema import (
    BundleInfo,
    FieldSpec,
    Golden,
    ModelSchema,
    OutputSpec,
    TensorSpec,
    encode_document,
)
from shoal_protocol.bundle.tensors import encode_tensor

LIMITS = PreflightLimits(wall_s=20.0)
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def model(*nodes, initializers=()) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def identity() -> bytes:
    return model(helper.make_node("Identity", ["x"], ["y"]))


def bomb(columns: int = 1 << 13) -> bytes:
    """A few hundred bytes that ask for 800 MB, or fewer: tile x to a large shape."""
    repeats = helper.make_tensor("r", TensorProto.INT64, [2], [1 << 12, columns])
    return model(
        helper.make_node("Tile", ["x", "r"], ["t"]), helper.make_node("Identity", ["t"], ["y"]), initializers=[repeats]
    )


def endless() -> bytes:
    """A loop of 2**62 turns."""
    turns = helper.make_tensor("turns", TensorProto.INT64, [], [1 << 62])
    go_on = helper.make_tensor("go_on", TensorProto.BOOL, [], [True])
    i = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    c_out = helper.make_tensor_value_info("c_out", TensorProto.BOOL, [])
    v = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
    v_out = helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Identity", ["v"], ["v_out"])],
        "body",
        [i, c, v],
        [c_out, v_out],
    )
    return model(helper.make_node("Loop", ["turns", "go_on", "x"], ["y"], body=body), initializers=[turns, go_on])


class Place:
    def __init__(self, folder) -> None:
        self.store = FolderBlobStore(folder)
        self.folder = folder
        self.preflight = ChildPreflight(folder, turns=threading.Semaphore(1), clock=time.monotonic)

    def bundle(self, onnx_model: bytes, *, expected=ROWS, **variants: bytes) -> str:
        info = BundleInfo(name="q", version="1", task="other", framework="t", golden=Golden(rows=3))
        schema = ModelSchema(
            tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
            inputs=(FieldSpec(name="x", dtype="float32", tensor="x"),),
            outputs=(OutputSpec(name="y", dtype="float32", shape=(None, 2), role="value"),),
        )
        files = {
            "bundle.json": encode_document(info),
            "schema.json": encode_document(schema),
            "model/model.onnx": onnx_model,
            golden_input(0): encode_tensor("x", ROWS),
            golden_output(0): encode_tensor("y", expected),
            **{f"model/{name}.onnx": content for name, content in variants.items()},
        }
        for data in (*files.values(), b"{}"):
            self.store.put(data)
        return self.store.add_bundle(encode_manifest(build_manifest(files, config=b"{}")))

    def run(self, digest: str, limits: PreflightLimits = LIMITS, *, cancelled=lambda: False):
        return self.preflight.run(digest, limits=limits, cancelled=cancelled)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_the_variant_that_would_answer_is_tested_and_no_other(place):
    twice = model(helper.make_node("Add", ["x", "x"], ["y"]))
    digest = place.bundle(identity(), int8=twice)
    assert place.run(digest).passed
    outcome = place.run(digest, PreflightLimits(variant="model/int8.onnx", wall_s=20.0))
    assert (outcome.passed, outcome.code) == (False, "preflight_golden")


def test_right_golden_rows_pass_and_are_measured(place):
    outcome = place.run(place.bundle(identity()))
    assert outcome.passed, outcome
    assert outcome.measured["rows"] == 3.0
    assert 0.0 < outcome.measured["p95_ms"] < 1000.0
    assert outcome.measured["rss_bytes"] > 1 << 20


def test_wrong_golden_rows_name_the_first_difference(place):
    outcome = place.run(place.bundle(identity(), expected=ROWS + np.float32(0.5)))
    assert (outcome.passed, outcome.code, outcome.transient) == (False, "preflight_golden", False)
    assert "golden row 0: got 0.0, expected 0.5" in outcome.message


def test_a_difference_within_the_tolerances_passes(place):
    assert place.run(place.bundle(identity(), expected=ROWS + np.float32(5e-6))).passed


def test_a_model_over_its_latency_budget_is_told(place):
    outcome = place.run(place.bundle(identity()), PreflightLimits(wall_s=20.0, latency_budget_ms=1e-9))
    assert (outcome.passed, outcome.code) == (False, "preflight_latency")


def test_a_memory_bomb_ends_only_the_child(place):
    digest = place.bundle(bomb())
    assert place.store.manifest(digest).files()["model/model.onnx"].size < 1000
    outcome = place.run(digest)
    assert (outcome.passed, outcome.transient) == (False, False)
    assert outcome.code in {"over_budget", "preflight_crash"}


def forest(trees: int, depth: int) -> bytes:
    """Return a full forest as converters write it: a dozen lists with one entry a node, in one to three bytes each."""
    inner, nodes = (1 << depth) - 1, (2 << depth) - 1
    ids, leaves = np.tile(np.arange(nodes), trees), np.tile(np.arange(inner, nodes), trees)
    here = ids < inner
    tree = np.repeat(np.arange(trees), nodes)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=tree,
        nodes_nodeids=ids,
        nodes_featureids=ids % 2 * here,
        nodes_modes=np.where(here, "BRANCH_LEQ", "LEAF"),
        nodes_values=(ids % 97 * 0.01).astype(np.float32),
        nodes_truenodeids=(2 * ids + 1) * here,
        nodes_falsenodeids=(2 * ids + 2) * here,
        nodes_missing_value_tracks_true=ids * 0,
        target_ids=leaves * 0,
        target_nodeids=leaves,
        target_treeids=np.repeat(np.arange(trees), len(leaves) // trees),
        target_weights=(leaves % 89 * 0.01).astype(np.float32),
    )
    made = model(node)
    proto = onnx.load_from_string(made)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return bytes(proto.SerializeToString())


def test_a_large_forest_gets_the_memory_that_loading_it_takes(place):
    large = forest(trees=120, depth=11)
    assert len(large) > 12_000_000
    outcome = place.run(place.bundle(large, expected=ROWS[:, :1]))
    assert outcome.code == "preflight_golden", outcome  # it came to its rows, whose answers nobody worked out here


def test_the_memory_follows_from_the_model_that_answers_and_from_no_other_file(place):
    """By the largest file it would be allowed 350 MB, of which it takes 200."""
    digest = place.bundle(bomb(1 << 11), int8=b"\0" * (12 << 20))
    outcome = place.run(digest)
    assert (outcome.passed, outcome.code, outcome.transient) == (False, "over_budget", False), outcome
    assert "more memory than the 64 MB that it is allowed" in outcome.message


def changed_child(place, monkeypatch, code: str) -> None:
    """Let the self-test run in a child in which something is otherwise."""
    script = place.folder / "changed_child.py"
    script.write_text(
        f"from pathlib import Path\nimport shoal_agent.adapters.preflight_child as child\n{code}\nchild.main()"
    )
    monkeypatch.setattr(preflight_module, "CHILD", script)


def test_a_model_gets_no_more_memory_than_the_device_has_available(place, monkeypatch):
    meminfo = place.folder / "meminfo"
    meminfo.write_text("MemTotal:         524288 kB\nMemFree:            9999 kB\nMemAvailable:      49152 kB\n")
    changed_child(place, monkeypatch, f"child.MEMINFO = Path({str(meminfo)!r})")
    outcome = place.run(place.bundle(bomb()), PreflightLimits(wall_s=20.0, memory_bytes=1 << 30))
    assert (outcome.passed, outcome.code, outcome.transient) == (False, "memory_short", True), outcome
    assert "more memory than the 48 MB that this device has available now" in outcome.message
    assert place.run(place.bundle(identity())).passed, "what finds room runs"


def test_the_kernel_is_asked_to_take_the_child_before_the_agent(place, monkeypatch):
    read = "float(Path('/proc/self/oom_score_adj').read_text())"
    changed_child(place, monkeypatch, f"child._compare = lambda *_: child._done(passed=True, first={read})")
    assert place.run(place.bundle(identity())).measured["first"] == 1000.0


def test_an_endless_model_is_killed_in_time(place):
    began = time.monotonic()
    outcome = place.run(place.bundle(endless()), PreflightLimits(wall_s=2.0))
    assert (outcome.code, outcome.transient) == ("preflight_timeout", False)
    assert time.monotonic() - began < 10.0


def test_garbage_is_no_model(place):
    outcome = place.run(place.bundle(b"garbage"))
    assert (outcome.passed, outcome.code) == (False, "model")


def test_damaged_files_are_told(place):
    digest = place.bundle(identity())
    blob = place.store.manifest(digest).files()["model/model.onnx"]
    place.store.path(blob.digest).write_bytes(b"\0" * blob.size)
    assert place.run(digest).code == "digest_mismatch"


def test_a_child_that_is_slow_to_read_its_request_gets_all_of_it(place, monkeypatch):
    """A pipe takes 64 KiB at once, so a longer request is still under way at the first look."""
    monkeypatch.setattr(preflight_module, "_POLL_S", 0.005)
    monkeypatch.setattr(sys, "path", [*sys.path, "/nowhere/" + "x" * (1 << 17)])
    assert place.run(place.bundle(identity())).passed


def test_giving_up_kills_the_child(place):
    digest = place.bundle(endless())
    calls = iter([False] * 5 + [True] * 100)
    with pytest.raises(CancelledError):
        place.run(digest, cancelled=lambda: next(calls))


def test_a_turn_that_never_comes_can_be_given_up(place):
    digest = place.bundle(identity())
    preflight = ChildPreflight(place.folder, turns=threading.Semaphore(0), clock=time.monotonic)
    with pytest.raises(CancelledError, match="turn"):
        preflight.run(digest, limits=LIMITS, cancelled=lambda: True)
