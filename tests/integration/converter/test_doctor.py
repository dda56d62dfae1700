"""`shoal-convert doctor`: what it finds, and the cure that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shoal_converter.doctor.installation import libraries
from shoal_server.access import Role
from shoal_server.access import routes as access_routes
from shoal_server.registry import trust_routes
from shoal_server.services import Services
from shoal_server.testing import api_token, listening, program_of
from shoal_server.web import health

REQUIRES = (
    "onnx>=1.17",
    "onnxruntime>=1.20",
    "pywin32>=1; sys_platform == 'win32'",
    "xgboost>=3.0; extra == 'xgboost'",
    "pyarrow>=15; extra == 'parquet'",
    "pandas>=2.2; extra == 'parquet'",
)


@pytest.fixture
def url(shoal: Services) -> Iterator[str]:
    with listening(program_of(shoal, [health.router, access_routes.router, trust_routes.router])) as address:
        yield address


def test_libraries_are_held_to_the_ranges_of_the_distribution() -> None:
    have = {"onnx": "1.16.2", "xgboost": "2.9", "pyarrow": "17.0", "pandas": "2.3"}
    found = {finding.check: finding for finding in libraries(REQUIRES, have.get)}
    assert {name: finding.state for name, finding in found.items()} == {
        "onnx": "wrong",
        "onnxruntime": "wrong",
        "extra parquet": "ok",
        "extra xgboost": "wrong",
    }
    assert found["onnx"].found == "1.16.2 is installed, >=1.17 is needed"
    assert found["onnxruntime"].cure == "pip install 'onnxruntime>=1.20'"
    assert found["extra xgboost"].cure == "pip install 'shoal-converter[xgboost]'"
    absent = {finding.check: finding.state for finding in libraries(REQUIRES, lambda _: None)}
    assert absent["extra parquet"] == "note", "an extra is no need"


def test_without_a_server_it_says_how_to_name_one(shoal_convert: Any) -> None:
    code, out, _ = shoal_convert("doctor", "--offline", "--json")
    answer = json.loads(out)
    states = {finding["check"]: finding["state"] for finding in answer["findings"]}
    assert (code, answer["ok"]) == (0, True), answer
    assert (states["conversion"], states["registry"]) == ("ok", "skipped")
    (pickles,) = (finding for finding in answer["findings"] if finding["check"] == "pickles")
    assert pickles["state"] == "ok" or "--trust=unisolated" in pickles["cure"]


def test_registry_token_and_key_are_tried_without_a_change(
    shoal_convert: Any, shoal: Services, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        monkeypatch.setattr("shoal_converter.doctor.examine_installation", list)  # tried above, and takes a second
        code, out, _ = shoal_convert("doctor", "--url", url, "--json", *arguments)
        return code, {finding["check"]: finding for finding in json.loads(out)["findings"]}

    code, found = doctor()
    assert (code, found["registry"]["state"], found["token"]["state"]) == (1, "ok", "wrong")
    assert "SHOAL_TOKEN" in found["token"]["cure"]
    monkeypatch.setenv("SHOAL_TOKEN", "shoal_nonsense")
    assert doctor()[1]["token"]["found"] == "the server does not know it (401)"
    monkeypatch.setenv("SHOAL_TOKEN", api_token(shoal, Role.VIEWER))
    assert "pushing needs releaser" in doctor()[1]["token"]["found"]
    monkeypatch.setenv("SHOAL_TOKEN", api_token(shoal, Role.RELEASER))
    code, found = doctor()
    assert (code, found["token"]["state"], found["release key"]["state"]) == (0, "ok", "skipped")

    code, found = doctor("--key", "nowhere.pem")
    assert (code, found["release key"]["state"]) == (1, "wrong")
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    code, found = doctor("--key", "key.pem")
    assert code == 1
    assert "signs releases itself" in found["release key"]["found"]
    assert "keys adopt" in found["release key"]["cure"]


def test_a_closed_port_and_a_wrong_authority_are_told_apart(
    shoal_convert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal_converter.doctor.examine_installation", list)
    code, out, _ = shoal_convert("doctor", "--url", "http://127.0.0.1:9", "--json")
    found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1
    assert "can't be reached" in found["registry"]["found"]
    monkeypatch.setenv("SHOAL_CA", "nowhere.pem")
    code, out, _ = shoal_convert("doctor", "--url", "https://127.0.0.1:9", "--json")
    found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1
    assert "certificate authority nowhere.pem can't be used" in found["registry"]["found"]
