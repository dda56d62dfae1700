"""Push and pull against the real registry over a real socket, and against one that misbehaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shoal_converter import Bundle
from shoal_converter.bundle import STATEMENT_MEDIA_TYPE
from shoal_converter.errors import RegistryError, RegistryRefusedError, SignatureError
from shoal_converter.gates import check
from shoal_converter.pushing import pull, push
from shoal_converter.registry import Registry
from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_server.access import Role
from shoal_server.registry import blob_routes, manifest_routes, routes, trust_routes
from shoal_server.services import Services
from shoal_server.testing import api_token, listening, program_of


@pytest.fixture
def url(shoal: Services) -> Iterator[str]:
    app = program_of(shoal, [blob_routes.router, manifest_routes.router, routes.router, trust_routes.router])
    with listening(app) as address:
        yield address


def test_the_server_tells_where_a_bundle_comes_from(bundle: Bundle, shoal: Services, url: str) -> None:
    token = api_token(shoal, Role.RELEASER)
    push(bundle, url, token=token)
    path = f"{url}/api/v1/models/iris/versions/1.0.0/lineage"
    found = httpx2.get(path, headers={"authorization": f"Bearer {token}"}, trust_env=False).json()
    assert (found["ref"], found["digest"]) == ("iris:1.0.0", bundle.digest)
    assert (found["ancestors"], found["children"]) == ([], [])
    assert {one["name"] for one in found["source"]["inputs"]} >= {"sample"}
    assert found["source"]["packages"]["scikit-learn"]
    assert found["source"]["finished_at"]
    assert bundle.parity is not None
    assert found["parity"]["rows"] == bundle.parity["rows"]
    assert found["cost"]["p50_ms"] > 0


def test_push_then_pull_gives_the_same_bundle_and_says_who_signed(bundle: Bundle, shoal: Services, url: str) -> None:
    token = api_token(shoal, Role.RELEASER)
    told: list[str] = []
    pushed = push(bundle, url, token=token, progress=told.append)
    assert pushed.digest == bundle.digest
    assert pushed.sent_bytes == bundle.size_bytes
    assert pushed.signed_by == "the server's development key"
    assert len(pushed.key_ids) == 1
    assert pushed.statements
    again = push(bundle, url, token=token, progress=told.append)
    assert (again.sent_bytes, again.already_there) == (0, len(bundle.blobs()))
    names = sorted(bundle.statements)
    assert (pushed.statements_sent, again.statements_sent) == (tuple(names), ())
    assert told[-len(names) :] == [f"statement {name}  already there" for name in names]
    assert told.count("statement parity  sent") == 1
    tests = {sha256_digest(raw): len(raw) for path, raw in bundle.files.items() if path.startswith("test_data_set_")}
    files = f"test_data_set_*  {len(tests)} files, {sum(tests.values()):,} bytes"
    assert len(tests) > 1
    received: list[str] = []
    fetched = pull("iris:1.0.0", url, token=token, progress=received.append)
    assert [line for line in told if line.startswith("test_data_set_")] == [f"{files}  sent", f"{files}  already there"]
    assert [line for line in received if line.startswith("test_data_set_")] == [files]
    assert dict(fetched.statements) == dict(bundle.statements)
    assert {gate.gate: gate.verdict for gate in check(fetched)}["stated parity"] == "pass"
    assert fetched.digest == bundle.digest
    assert dict(fetched.files) == dict(bundle.files)
    assert pull(f"iris@{bundle.digest}", url, token=token).digest == bundle.digest


def test_the_command_pushes_and_pulls(  # noqa: PLR0917 - pytest passes by name
    shoal_convert: Any, bundle: Bundle, shoal: Services, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.write(tmp_path / "b.tar")
    monkeypatch.setenv("SHOAL_URL", url)
    code, _, err = shoal_convert("push", "b.tar")
    assert code == 1
    assert "SHOAL_TOKEN" in err
    monkeypatch.setenv("SHOAL_TOKEN", api_token(shoal, Role.VIEWER))
    code, _, err = shoal_convert("push", "b.tar")
    assert code == 1
    assert "needs releaser" in err
    (tmp_path / "token").write_text(api_token(shoal, Role.RELEASER) + "\n")
    code, out, err = shoal_convert("push", "b.tar", "--token-file", "token")
    assert code == 0, err
    assert "signed by  the server's development key" in out
    code, out, _ = shoal_convert("push", "b.tar", "--token-file", "token", "--json")
    assert json.loads(out)["sent_bytes"] == 0
    assert shoal_convert("pull", "iris:1.0.0", "-o", "c.tar")[0] == 0
    assert Bundle.open(tmp_path / "c.tar").digest == bundle.digest
    code, _, err = shoal_convert("pull", "iris:9.9.9")
    assert code == 1
    assert "refuses (404)" in err
    assert "iris has 1.0.0" in err
    assert shoal_convert("pull", "iris:1.0.0", "--url", f"{url}/v2/", "-o", "d.tar")[0] == 0
    code, _, err = shoal_convert("pull", "rose:1.0.0")
    assert "nothing of the name rose is there" in err
    code, _, err = shoal_convert("pull", "iris:1.0.0", "--url", url.replace("http", "https"), "-o", "e.tar")
    assert (code, "doesn't speak TLS" in err) == (6, True)


def test_another_bundle_under_the_same_version_is_refused(
    bundle: Bundle, workshop: Any, shoal: Services, url: str
) -> None:
    from shoal_converter import pack

    token = api_token(shoal, Role.RELEASER)
    push(bundle, url, token=token)
    other = pack(workshop.model, sample=workshop.rows[:100], tag="iris:1.0.0")
    with pytest.raises(RegistryRefusedError) as caught:
        push(other, url, token=token)
    assert caught.value.data["status"] == 409


def test_nobody_there_is_a_network_error_with_exit_code_6(shoal_convert: Any, bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b.tar")
    code, _, err = shoal_convert("push", "b.tar", "--url", "http://127.0.0.1:9")
    assert code == 6
    assert "can't be reached" in err


class Fake:
    """A registry in memory that can be told to misbehave."""

    def __init__(self, *, break_after: int = 10**9, spoil: str = "", signs: bool = True) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.part = b""
        self.patches = 0
        self.break_after = break_after
        self.spoil = spoil
        self.signs = signs
        self.seen: list[httpx2.Request] = []

    def registry(self) -> Registry:
        return Registry("http://fake", token="t", transport=httpx2.MockTransport(self.answer), sleep=lambda _: None)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        path, method = request.url.path, request.method
        last = path.rpartition("/")[2]
        if path == "/trust/targets.json":
            return httpx2.Response(200, json={"signed": {"targets": {}}}) if not self.signs else httpx2.Response(404)
        if method == "POST":
            self.part = b""
            return httpx2.Response(202, headers={"Location": "/v2/iris/blobs/uploads/1?state=a"})
        if method == "PATCH":
            self.patches += 1
            start = int(request.headers["Content-Range"].partition("-")[0])
            if start != len(self.part):
                return httpx2.Response(
                    416, headers={"Location": "/v2/iris/blobs/uploads/1", "Range": f"0-{len(self.part) - 1}"}
                )
            content = request.read()
            if self.patches == self.break_after:
                self.part += content[: len(content) // 2]
                raise httpx2.ReadError("cut", request=request)
            self.part += content
            return httpx2.Response(202, headers={"Location": "/v2/iris/blobs/uploads/1"})
        if "/blobs/uploads/" in path:
            digest = request.url.params["digest"]
            assert sha256_digest(self.part) == digest
            self.blobs[digest] = self.part
            return httpx2.Response(201)
        store = self.blobs if "/blobs/" in path else self.manifests
        if method == "PUT":
            store[last] = request.read()
            return httpx2.Response(201, headers={"Docker-Content-Digest": self.spoil or sha256_digest(store[last])})
        if last not in store:
            return httpx2.Response(404, json={"errors": [{"code": "BLOB_UNKNOWN", "message": "no such thing"}]})
        content = store[last]
        return httpx2.Response(200, content=self.spoil.encode() + content if self.spoil else content)


def test_a_cut_connection_is_tried_again_and_goes_on_where_it_was(bundle: Bundle) -> None:
    fake = Fake(break_after=2)
    pushed = push(bundle, fake.registry())
    assert set(fake.blobs) >= set(bundle.blobs())
    assert pushed.signed_by == ""
    assert fake.seen[0].headers["Authorization"] == "Bearer t"


def test_large_blobs_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_converter.registry.CHUNK_BYTES", 1000)
    fake, counted = Fake(break_after=3), []
    content = bytes(range(256)) * 20
    fake.registry().upload("iris", content, sent=counted.append)
    assert fake.blobs == {sha256_digest(content): content}
    assert fake.patches == 7
    assert sum(counted) >= len(content)


def test_a_registry_that_stores_something_else_is_found(bundle: Bundle) -> None:
    with pytest.raises(SignatureError):
        push(bundle, Fake(spoil="sha256:" + "0" * 64).registry())


def test_a_server_that_takes_but_does_not_sign_is_told(bundle: Bundle) -> None:
    with pytest.raises(SignatureError) as caught:
        push(bundle, Fake(signs=False).registry())
    assert "did not sign" in caught.value.message


def test_spoilt_blobs_are_refused_on_the_way_down(bundle: Bundle) -> None:
    fake = Fake()
    push(bundle, fake.registry())
    digest = sha256_digest(bundle.model)
    fake.blobs[digest] = fake.blobs[digest][:-1] + b"!"
    with pytest.raises(SignatureError):
        pull("iris:1.0.0", fake.registry())
    fake.blobs[digest] = b"x" * 10_000_000
    with pytest.raises(RegistryRefusedError) as caught:
        pull("iris:1.0.0", fake.registry())
    assert "more than" in caught.value.message


def test_a_spoilt_statement_is_refused_and_a_stranger_among_them_left_out(bundle: Bundle) -> None:
    fake = Fake()
    told: list[str] = []
    push(bundle, fake.registry())
    (index,) = (tag for tag in fake.manifests if tag.startswith("sha256-"))
    listed = json.loads(fake.manifests[index])
    stranger = canonical_bytes({**json.loads(bundle.referrers()[0]), "subject": {"digest": "sha256:" + "0" * 64}})
    fake.manifests[sha256_digest(stranger)] = stranger
    entry = {"digest": sha256_digest(stranger), "artifactType": STATEMENT_MEDIA_TYPE}
    fake.manifests[index] = json.dumps({**listed, "manifests": [*listed["manifests"], entry]}).encode()
    assert dict(pull("iris:1.0.0", fake.registry(), progress=told.append).statements) == dict(bundle.statements)
    assert "left out" in told[-1]
    fake.blobs[sha256_digest(bundle.statements["parity"])] = b"{}"
    with pytest.raises(SignatureError, match="other bytes"):
        pull("iris:1.0.0", fake.registry())


def test_a_token_never_goes_to_another_host() -> None:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(202, headers={"Location": "http://elsewhere/upload"})

    registry = Registry("http://fake", token="t", transport=httpx2.MockTransport(answer))
    with pytest.raises(RegistryRefusedError) as caught:
        registry.upload("iris", b"x", sent=lambda _: None)
    assert "must not go" in caught.value.message


def test_a_failing_server_is_tried_three_times() -> None:
    calls: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        calls.append(request.method)
        return httpx2.Response(503, text="busy")

    with pytest.raises(RegistryError):
        Registry("http://fake", transport=httpx2.MockTransport(answer), sleep=lambda _: None).has_blob(
            "iris", "sha256:0"
        )
    assert calls == ["HEAD"] * 3


def test_user_and_password_are_for_other_registries() -> None:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Authorization"])
        return httpx2.Response(200)

    Registry("http://fake", token="ann:pw", transport=httpx2.MockTransport(answer)).has_blob("iris", "sha256:0")
    assert seen == ["Basic YW5uOnB3"]


def test_a_dry_run_tells_what_would_be_sent_and_sends_nothing(  # noqa: PLR0917 - pytest passes by name
    shoal_convert: Any, bundle: Bundle, shoal: Services, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.write(tmp_path / "b.tar")
    monkeypatch.setenv("SHOAL_URL", url)
    monkeypatch.setenv("SHOAL_TOKEN", api_token(shoal, Role.RELEASER))
    code, out, err = shoal_convert("push", "b.tar", "--dry-run", "--json")
    answer = json.loads(out)
    assert code == 0, err
    assert (answer["dry_run"], answer["missing_bytes"]) == (True, bundle.size_bytes)
    assert not answer["already_there"]
    assert shoal_convert("pull", "iris:1.0.0")[0] == 1, "nothing is there"

    assert shoal_convert("push", "b.tar")[0] == 0
    code, out, _ = shoal_convert("push", "b.tar", "--dry-run")
    assert code == 0
    assert f"0 bytes, {len(bundle.blobs())} files already there" in out
    assert "would be sent" not in out

    other = Bundle.build({**bundle.files, "README.md": b"other"}, config=bundle.config, annotations={})
    other.write(tmp_path / "other.tar")
    for arguments in (["--dry-run"], []):
        code, _, err = shoal_convert("push", "other.tar", *arguments)
        assert code == 1
        assert "a released version never changes" in err
        assert "next version" in err
