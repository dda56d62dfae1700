"""What a push makes, and which pushes are refused by which rule."""

import json
import threading
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from onnx import NodeProto, TensorProto, helper

from shoal_protocol.bundle.layout import BUNDLE_JSON, MODEL_ONNX, README, REFERENCE_JSON, SCHEMA_JSON
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DeniedError
from shoal_server.registry import store
from shoal_server.services import Services
from shoal_server.testing.bundles import TinyBundle, linear_model, push_bundle, put_manifest, tiny_bundle

Headers = dict[str, str]


def test_a_pushed_version_can_be_resolved_and_is_on_the_signed_list(
    client: TestClient, shoal: Services, releaser: Headers
) -> None:
    bundle = tiny_bundle()
    answer = push_bundle(client, bundle, headers=releaser)
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, bundle.digest)
    with shoal.database.read() as session:
        resolved = store.resolve(session, "quality:1.0.0")
        entry = shoal.trust.signed_list(session).check(bundle.digest)
    assert (resolved.name, resolved.digest) == ("quality:1.0.0", bundle.digest)
    assert (entry.path, entry.counter, entry.size) == ("quality/1.0.0", 1, len(bundle.manifest))
    assert shoal.bundles.info(bundle.digest).task == "regression"
    assert shoal.bundles.reference(bundle.digest).profile.n == 200


def test_the_same_push_again_changes_nothing(client: TestClient, shoal: Services, releaser: Headers) -> None:
    for _ in range(2):
        assert push_bundle(client, tiny_bundle(), headers=releaser).status_code == 201
    with shoal.database.read() as session:
        assert shoal.trust.signed_list(session).version == 2
        assert len(store.versions(session, "quality")) == 1


def test_a_version_never_changes(client: TestClient, shoal: Services, releaser: Headers) -> None:
    first = tiny_bundle()
    push_bundle(client, first, headers=releaser)
    answer = push_bundle(client, tiny_bundle(weights=(3.0, 4.0)), headers=releaser)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (409, "TAG_INVALID")
    assert "versions never change" in answer.json()["errors"][0]["message"]
    with shoal.database.read() as session:
        assert store.resolve(session, "quality:1.0.0").digest == first.digest


def test_counters_grow_with_every_version(client: TestClient, shoal: Services, releaser: Headers) -> None:
    for version in ("1.0.0", "2.0.0", "1.0.1"):
        push_bundle(client, tiny_bundle(version=version), headers=releaser)
    with shoal.database.read() as session:
        assert [(row.version, row.counter) for row in store.versions(session, "quality")] == [
            ("1.0.1", 3),
            ("2.0.0", 2),
            ("1.0.0", 1),
        ]


def test_pushes_at_the_same_time_all_arrive_and_one_of_two_rivals_wins(
    app: FastAPI, shoal: Services, releaser: Headers
) -> None:
    versions = ["1.0", "1.1", "1.2", "1.3"]
    bundles = [tiny_bundle(version=version) for version in versions]
    rivals = [tiny_bundle(version="2.0", weights=(1.0, float(number))) for number in (5, 6)]
    answers: list[int] = []

    def push(bundle: TinyBundle) -> None:
        answers.append(push_bundle(TestClient(app), bundle, headers=releaser).status_code)

    threads = [threading.Thread(target=push, args=(bundle,)) for bundle in (*bundles, *rivals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] * 5 + [409]
    with shoal.database.read() as session:
        rows = store.versions(session, "quality")
        entries = shoal.trust.signed_list(session).entries
    assert [row.counter for row in rows] == [5, 4, 3, 2, 1]
    assert {row.digest: row.counter for row in rows} == {digest: entry.counter for digest, entry in entries.items()}


def test_a_push_has_its_audit_row(client: TestClient, shoal: Services, releaser: Headers) -> None:
    from shoal_server.access import audit

    push_bundle(client, tiny_bundle(), headers=releaser)
    with shoal.database.read() as session:
        row = audit.head(session)
    assert (row.actor, row.action, row.subject) == ("token:releaser", "model.push", "model:quality:1.0.0")


def _pickle(bundle: TinyBundle) -> None:
    bundle.files["model/extra.pkl"] = b"\x80\x04."


def _no_schema(bundle: TinyBundle) -> None:
    del bundle.files[SCHEMA_JSON]


def _other_name(bundle: TinyBundle) -> None:
    bundle.files[BUNDLE_JSON] = tiny_bundle("other").files[BUNDLE_JSON]


def _bad_reference(bundle: TinyBundle) -> None:
    document = json.loads(bundle.files[REFERENCE_JSON])
    document["cells"][0] += 1
    bundle.files[REFERENCE_JSON] = json.dumps(document).encode()


def _bad_schema(bundle: TinyBundle) -> None:
    bundle.files[SCHEMA_JSON] = b'{"tensors": 7}'


def _missing_variant(bundle: TinyBundle) -> None:
    document = json.loads(bundle.files[BUNDLE_JSON])
    document["variants"] = [{"path": "model/model.int8.onnx"}]
    bundle.files[BUNDLE_JSON] = json.dumps(document).encode()


def _not_onnx(bundle: TinyBundle) -> None:
    bundle.files[MODEL_ONNX] = b"\x80\x04cposix\nsystem\n"


def _foreign_operator(bundle: TinyBundle) -> None:
    bundle.files[MODEL_ONNX] = linear_model(domain="evil.ops")


def _external_weights(bundle: TinyBundle) -> None:
    import onnx

    model = onnx.load_from_string(linear_model())
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    bundle.files[MODEL_ONNX] = model.SerializeToString()


def _deep(bundle: TinyBundle) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
        inner = helper.make_graph([node], "g", [], [])
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    bundle.files[MODEL_ONNX] = helper.make_model(helper.make_graph(inner.node, "g", [], [value])).SerializeToString()


def _invalid_graph(bundle: TinyBundle) -> None:
    import onnx

    model = onnx.load_from_string(linear_model())
    model.graph.node[0].input[1] = "nowhere"
    bundle.files[MODEL_ONNX] = model.SerializeToString()


def _with_node(bundle: TinyBundle, node: NodeProto, *initializers: TensorProto) -> None:
    import onnx

    model = onnx.load_from_string(linear_model())
    model.graph.node.append(node)
    model.graph.initializer.extend(initializers)
    bundle.files[MODEL_ONNX] = model.SerializeToString()


def _terabyte(bundle: TinyBundle) -> None:
    shape = helper.make_tensor("huge", TensorProto.INT64, [2], [1_000_000, 1_000_000])
    _with_node(bundle, helper.make_node("ConstantOfShape", ["huge"], ["zeros"]), shape)


def _shape_that_lies(bundle: TinyBundle) -> None:
    lie = helper.make_tensor("lie", TensorProto.FLOAT, [1], [1.0])
    lie.dims[0] = 2**40
    _with_node(bundle, helper.make_node("Identity", ["lie"], ["copy"]), lie)


def _sparse_bomb(bundle: TinyBundle) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [7])
    bomb = helper.make_sparse_tensor(values, indices, [2**40])
    _with_node(bundle, helper.make_node("Constant", [], ["dense"], sparse_value=bomb))


def _library(bundle: TinyBundle) -> None:
    bundle.files["model/ops.so"] = b"\x7fELF"


def _huge_document(bundle: TinyBundle) -> None:
    bundle.files[SCHEMA_JSON] = b" " * (32 * 1024**2 + 1)


def _other_interface(bundle: TinyBundle) -> None:
    document = json.loads(bundle.files[SCHEMA_JSON])
    document["tensors"][0]["name"] = "z"
    for spec in document["inputs"]:
        spec["tensor"] = "z"
    bundle.files[SCHEMA_JSON] = json.dumps(document).encode()


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (_pickle, "file_types"),
        (_no_schema, "required_files"),
        (_other_name, "identity"),
        (_bad_reference, "reference_json"),
        (_bad_schema, "schema_json"),
        (_missing_variant, "variants"),
        (_not_onnx, "onnx_parses"),
        (_foreign_operator, "onnx_domains"),
        (_external_weights, "onnx_external_data"),
        (_deep, "onnx_depth"),
        (_terabyte, "onnx_constants"),
        (_shape_that_lies, "onnx_constants"),
        (_sparse_bomb, "onnx_constants"),
        (_library, "file_types"),
        (_huge_document, "schema_json"),
        (_invalid_graph, "onnx_valid"),
        (_other_interface, "interface"),
    ],
)
def test_a_bundle_that_breaks_a_rule_is_refused_by_name(
    client: TestClient, shoal: Services, releaser: Headers, damage: Callable[[TinyBundle], None], rule: str
) -> None:
    bundle = tiny_bundle()
    damage(bundle)
    answer = push_bundle(client, bundle, headers=releaser)
    assert answer.status_code == 400
    error = answer.json()["errors"][0]
    assert (error["code"], error["detail"]["rule"]) == ("MANIFEST_INVALID", rule)
    assert f"refused by the rule {rule}" in error["message"]
    with shoal.database.read() as session:
        assert store.find_version(session, "quality", "1.0.0") is None
        assert shoal.trust.signed_list(session).entries == {}


def test_a_bundle_beyond_every_size_is_refused_by_its_manifest(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    document = json.loads(bundle.manifest)
    for layer in document["layers"]:
        layer["size"] = 1024**3
    answer = put_manifest(client, "quality", "1.0.1", json.dumps(document).encode(), headers=releaser)
    faults = answer.json()["errors"][0]["detail"]["faults"]
    assert {"blob_size", "bundle_size"} == {fault["rule"] for fault in faults}


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda raw: raw[:-1], "manifest"),
        (lambda raw: raw.replace(b"sha256:", b"sha512:"), "manifest"),
        (lambda raw: b"[" * 100_000, "manifest"),
        (lambda raw: raw.replace(b'"model/model.onnx"', b'"../../etc/passwd"'), "manifest"),
        (lambda raw: raw.replace(b'"model/model.onnx"', b'"/model/model.onnx"'), "manifest"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    client: TestClient, releaser: Headers, damage: Callable[[bytes], bytes], rule: str
) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    answer = put_manifest(client, "quality", "1.0.1", damage(bundle.manifest), headers=releaser)
    assert (answer.status_code, answer.json()["errors"][0]["detail"]["rule"]) == (400, rule)


def test_all_faults_are_told_together(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    _bad_schema(bundle)
    _bad_reference(bundle)
    _other_name(bundle)
    error = push_bundle(client, bundle, headers=releaser).json()["errors"][0]
    assert [fault["rule"] for fault in error["detail"]["faults"]] == ["schema_json", "reference_json", "identity"]


def test_blobs_must_be_pushed_to_this_repository_first(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, tiny_bundle("other"), headers=releaser)
    answer = put_manifest(client, "quality", "1.0.0", bundle.manifest, headers=releaser)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_a_size_that_lies_is_refused(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    readme = sha256_digest(bundle.files[README])
    document = json.loads(bundle.manifest)
    next(layer for layer in document["layers"] if layer["digest"] == readme)["size"] += 1
    answer = put_manifest(client, "quality", "1.0.1", json.dumps(document).encode(), headers=releaser)
    assert answer.json()["errors"][0]["detail"]["rule"] == "blob_size"


def test_an_alias_names_a_version_and_remembers(
    client: TestClient, releaser: Headers, viewer: Headers, shoal: Services
) -> None:
    one, two = tiny_bundle(version="1.0"), tiny_bundle(version="2.0")
    for bundle in (one, two):
        push_bundle(client, bundle, headers=releaser)
    assert put_manifest(client, "quality", "champion", one.manifest, headers=releaser).status_code == 201
    shoal.clock.advance(60)
    answer = client.put("/api/v1/models/quality/aliases/champion", json={"version": "2.0"}, headers=releaser)
    assert answer.json()["version"] == "2.0"
    with shoal.database.read() as session:
        assert store.resolve(session, "quality@champion").version == "2.0"
    shown = client.get("/api/v1/models/quality/aliases/champion", headers=viewer).json()
    assert [(change["version"], change["by"]) for change in shown["history"]] == [
        ("2.0", "token:releaser"),
        ("1.0", "token:releaser"),
    ]
    assert client.get("/v2/quality/manifests/champion", headers=viewer).headers["docker-content-digest"] == two.digest


def test_an_alias_cannot_name_what_was_not_admitted(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    _pickle(bundle)
    answer = push_bundle(client, bundle, headers=releaser, tag="champion")
    assert (answer.status_code, answer.json()["errors"][0]["detail"]["rule"]) == (400, "alias")
    assert client.get("/v2/quality/manifests/champion", headers=releaser).status_code == 404


def test_deny_reaches_the_signed_list_and_is_lifted(client: TestClient, releaser: Headers, shoal: Services) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    assert client.post("/api/v1/models/quality/versions/1.0.0/deny", headers=releaser).json()["state"] == "denied"
    with shoal.database.read() as session, pytest.raises(DeniedError):
        shoal.trust.signed_list(session).check(bundle.digest)
    assert client.post("/api/v1/models/quality/versions/1.0.0/allow", headers=releaser).json()["state"] == "released"
    with shoal.database.read() as session:
        assert shoal.trust.signed_list(session).check(bundle.digest).version == "1.0.0"


def test_versions_are_never_deleted_but_aliases_and_artifacts_are(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    put_manifest(client, "quality", "champion", bundle.manifest, headers=releaser)
    for reference in ("1.0.0", bundle.digest):
        answer = client.delete(f"/v2/quality/manifests/{reference}", headers=releaser)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (405, "UNSUPPORTED")
    assert client.delete("/v2/quality/manifests/champion", headers=releaser).status_code == 202
    assert client.delete("/v2/quality/manifests/champion", headers=releaser).status_code == 404
    assert client.get("/v2/quality/manifests/1.0.0", headers=releaser).content == bundle.manifest


def test_models_are_listed_with_their_newest_version(client: TestClient, releaser: Headers, viewer: Headers) -> None:
    for name, version in (("quality", "1.0"), ("quality", "1.1"), ("amount", "3")):
        push_bundle(client, tiny_bundle(name, version), headers=releaser)
    first = client.get("/api/v1/models?limit=1", headers=viewer).json()
    second = client.get("/api/v1/models", params={"cursor": first["next_cursor"]}, headers=viewer).json()
    assert [item["newest"]["ref"] for item in first["items"] + second["items"]] == ["amount:3", "quality:1.1"]
    shown = client.get("/api/v1/models/quality/versions/1.1", headers=viewer).json()
    assert (shown["bundle"]["task"], shown["schema"]["inputs"][0]["name"]) == ("regression", "a")
    assert {file["path"] for file in shown["files"]} == set(tiny_bundle().files)
    assert client.get("/api/v1/models/nothing", headers=viewer).status_code == 404


def test_a_tag_for_something_else_is_refused(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    other = json.dumps({**json.loads(bundle.manifest), "artifactType": "application/x-other"}).encode()
    assert put_manifest(client, "quality", "2.0", other, headers=releaser).status_code == 409
    assert put_manifest(client, "quality", "Champion", bundle.manifest, headers=releaser).status_code == 409
    assert put_manifest(client, "quality", "other", other, headers=releaser).status_code == 201
    answer = put_manifest(client, "quality", "2.0", b"{}", headers=releaser, media_type=MANIFEST_MEDIA_TYPE)
    assert answer.json()["errors"][0]["detail"]["rule"] == "manifest"
