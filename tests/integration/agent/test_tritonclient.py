"""A client that others wrote: Triton's, against our Open Inference Protocol."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fixtures_models import linear_bundle, make_bundle, mixed_model, mixed_schema
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.http import LocalServer
from shoal_agent.serving.listen import Listen

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
triton_utils = pytest.importorskip("tritonclient.utils")

X = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)


def load(bundle: tuple[str, dict[str, bytes]]) -> LoadedModel:
    return LoadedModel.load(from_blobs(bundle[0], lambda name, _: bundle[1][name]))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    slots = SlotTable()
    slots.install("quality", load(linear_bundle()))
    slots.install("mixed", load(make_bundle(mixed_model(), mixed_schema())))
    server = LocalServer(Api(slots, hosts=Listen("127.0.0.1").hosts).answerer, Listen("127.0.0.1", 0))
    url = server.start()
    connection = triton.InferenceServerClient(url.removeprefix("http://"))
    yield connection
    connection.close()
    server.stop()


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool) -> Any:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("quality")
    assert client.is_model_ready("quality", "1.0.0")
    assert not client.is_model_ready("quality", "9")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("quality")["inputs"][0]["datatype"] == "FP32"


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_tensors_in_both_forms(client: Any, *, sent: bool, wanted: bool, packed: str | None) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=wanted) for name in ("probabilities", "label")]
    result = client.infer(
        "quality",
        [tensor("x", X, "FP32", binary=sent)],
        outputs=outputs,
        request_id="7",
        request_compression_algorithm=packed,
    )
    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == "1.0.0"
    assert np.allclose(result.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)
    assert result.as_numpy("label").tolist() == result.as_numpy("probabilities").argmax(axis=1).tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_texts_and_all_outputs(client: Any, *, binary: bool) -> None:
    inputs = [
        tensor("age", np.array([[1], [2]], np.float32), "FP32", binary=binary),
        tensor("visits", np.array([[1], [1]], np.int64), "INT64", binary=binary),
        tensor("city", np.array([["Bern"], ["Zürich"]], dtype=object), "BYTES", binary=binary),
    ]
    result = client.infer("mixed", inputs)
    texts = [t.decode() if isinstance(t, bytes) else t for t in result.as_numpy("label").ravel()]
    assert texts == ["south", "elsewhere"]
    assert result.as_numpy("value").ravel().tolist() == [2.0, 3.0]


def test_errors_are_told(client: Any) -> None:
    with pytest.raises(triton_utils.InferenceServerException, match="float32"):
        client.infer("quality", [tensor("x", X[:, :3].copy(), "FP32", binary=True)])
