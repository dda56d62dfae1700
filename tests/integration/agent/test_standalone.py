"""A bundle served and asked with no server and no state."""

import http.client
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from fixtures_models import (
    constant_model,
    constant_schema,
    linear_bundle,
    linear_model,
    linear_schema,
    make_bundle,
    mixed_model,
    mixed_schema,
    write_layout,
    write_tar,
)
from shoal_agent.domain.fit import DeviceFacts
from shoal_agent.domain.providers import CPU
from shoal_agent.errors import UnfitError
from shoal_agent.machine import known_facts
from shoal_agent.serving.standalone import RunOptions, Serving, load_bundle, serve_bundle
from shoal_agent.settings import load_settings
from shoal_protocol.bundle.layout import golden_output
from shoal_protocol.bundle.tensors import encode_tensor
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError

MIXED = make_bundle(mixed_model(), mixed_schema(missing_sentinel="?"), name="visitors")
ROWS = [{"age": 30, "visits": 2, "city": "Bern"}, {"age": None, "visits": 1, "city": None}]


def test_a_bundle_is_served_under_its_own_name_until_told_to_stop(tmp_path: Path) -> None:
    told: list[Serving] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(serving: Serving) -> None:
        told.append(serving)
        ready.set()

    path = write_tar(tmp_path / "visitors.tar", *MIXED)
    thread = threading.Thread(
        target=serve_bundle, args=(path,), kwargs={"listen": "127.0.0.1:0", "stop": stop, "announce": announce}
    )
    thread.start()
    assert ready.wait(30)
    assert (told[0].slot, told[0].bundle, told[0].digest) == ("visitors", "visitors:1.0.0", MIXED[0])
    client = http.client.HTTPConnection(told[0].url.removeprefix("http://"), timeout=10)
    client.request("POST", "/v1/predict", json.dumps(ROWS))
    answer = json.loads(client.getresponse().read())
    client.close()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert [row["label"] for row in answer["predictions"]] == ["south", "elsewhere"]
    assert answer["digest"] == MIXED[0]


def test_a_bundle_that_answers_otherwise_here_is_not_served(tmp_path: Path) -> None:
    digest, blobs = linear_bundle()
    assert load_bundle(write_layout(tmp_path / "good", digest, blobs)).golden is not None
    golden = {"x": np.ones((4, 4), np.float32)}
    wrong = make_bundle(linear_model(), linear_schema(), golden=golden, spoil={golden_output(1): _wrong_rows()})
    with pytest.raises(ContentError, match="fails its self-test on this machine: output 'probabilities'"):
        load_bundle(write_layout(tmp_path / "wrong", *wrong))
    model = load_bundle(write_layout(tmp_path / "plain", *make_bundle(constant_model(1), constant_schema())))
    assert model.golden is None
    assert sha256_digest(blobs[digest]) == digest


def _wrong_rows() -> bytes:
    return encode_tensor("probabilities", np.full((4, 3), 0.5, np.float32))


def _facts(tmp_path: Path, providers: str) -> DeviceFacts:
    return known_facts(load_settings({"providers": providers}, state=tmp_path))


def test_a_provider_that_is_not_here_is_left_out_where_the_processor_may_step_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_layout(tmp_path / "bundle", *linear_bundle())
    model = load_bundle(path, options=RunOptions(facts=_facts(tmp_path, "cuda,cpu")))
    assert model.engine.providers == (CPU,)
    assert "the onnxruntime here has no CUDAExecutionProvider" in caplog.text
    with pytest.raises(UnfitError, match="providers = CUDAExecutionProvider; the onnxruntime here has CPUEx"):
        load_bundle(path, options=RunOptions(facts=_facts(tmp_path, "cuda")))
