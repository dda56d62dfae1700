"""The OCI distribution API, request by request (specification 1.1)."""

import base64
import json

import pytest
from fastapi.testclient import TestClient

from shoal_protocol.canonical import sha256_digest
from shoal_server.access import audit
from shoal_server.registry import oci_store
from shoal_server.services import Services
from shoal_server.testing.bundles import push_bundle, put_manifest, tiny_bundle

Headers = dict[str, str]
DATA = bytes(range(256)) * 20
DIGEST = sha256_digest(DATA)
UPLOADS = "/v2/quality/blobs/uploads/"
BLOB = f"/v2/quality/blobs/{DIGEST}"


def _begin(client: TestClient, headers: Headers) -> str:
    answer = client.post(UPLOADS, headers=headers)
    assert answer.status_code == 202
    return answer.headers["location"]


def _error(answer) -> str:
    return answer.json()["errors"][0]["code"]


def test_a_blob_in_one_request(client: TestClient, releaser: Headers) -> None:
    answer = client.post(UPLOADS, params={"digest": DIGEST}, content=DATA, headers=releaser)
    assert (answer.status_code, answer.headers["location"], answer.headers["docker-content-digest"]) == (
        201,
        BLOB,
        DIGEST,
    )
    assert client.get(BLOB, headers=releaser).content == DATA


def test_a_blob_in_two_requests(client: TestClient, releaser: Headers) -> None:
    where = _begin(client, releaser)
    assert client.put(where, params={"digest": DIGEST}, content=DATA, headers=releaser).status_code == 201
    head = client.head(BLOB, headers=releaser)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(DATA)), b"")


@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*", "bytes={}-{}"])
def test_a_blob_in_chunks_that_is_resumed(client: TestClient, releaser: Headers, form: str) -> None:
    where = _begin(client, releaser)
    first = client.patch(where, content=DATA[:2000], headers={**releaser, "content-range": form.format(0, 1999)})
    assert (first.status_code, first.headers["range"]) == (202, "0-1999")
    again = client.patch(where, content=DATA[:2000], headers={**releaser, "content-range": form.format(0, 1999)})
    assert (again.status_code, again.headers["range"]) == (416, "0-1999")
    shown = client.get(where, headers=releaser)
    assert (shown.status_code, shown.headers["range"]) == (204, "0-1999")
    last = {**releaser, "content-range": form.format(2000, len(DATA) - 1)}
    assert client.put(where, params={"digest": DIGEST}, content=DATA[2000:], headers=last).status_code == 201
    assert client.get(BLOB, headers=releaser).content == DATA
    assert _error(client.get(where, headers=releaser)) == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_with_another_digest_is_gone(client: TestClient, releaser: Headers, shoal: Services) -> None:
    where = _begin(client, releaser)
    client.patch(where, content=b"other", headers=releaser)
    answer = client.put(where, params={"digest": DIGEST}, headers=releaser)
    assert (answer.status_code, _error(answer)) == (400, "DIGEST_INVALID")
    assert client.get(where, headers=releaser).status_code == 404
    assert not shoal.blobs.has(DIGEST)


def test_an_upload_that_is_given_up_is_gone(client: TestClient, releaser: Headers) -> None:
    where = _begin(client, releaser)
    assert client.delete(where, headers=releaser).status_code == 204
    assert client.delete(where, headers=releaser).status_code == 404


def test_parts_of_a_blob(client: TestClient, releaser: Headers) -> None:
    client.post(UPLOADS, params={"digest": DIGEST}, content=DATA, headers=releaser)
    part = client.get(BLOB, headers={**releaser, "range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, DATA[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(DATA)}"
    tail = client.get(BLOB, headers={**releaser, "range": "bytes=5000-", "if-range": part.headers["etag"]})
    assert (tail.status_code, tail.content) == (206, DATA[5000:])
    assert client.get(BLOB, headers={**releaser, "range": f"bytes={len(DATA)}-"}).status_code == 416
    assert client.get(BLOB, headers={**releaser, "if-none-match": part.headers["etag"]}).status_code == 304


def test_a_blob_belongs_to_its_repository_until_it_is_mounted(client: TestClient, releaser: Headers) -> None:
    client.post(UPLOADS, params={"digest": DIGEST}, content=DATA, headers=releaser)
    other = BLOB.replace("quality", "other")
    assert _error(client.get(other, headers=releaser)) == "BLOB_UNKNOWN"
    mount = {"mount": DIGEST, "from": "quality"}
    answer = client.post("/v2/other/blobs/uploads/", params=mount, headers=releaser)
    assert (answer.status_code, answer.headers["location"]) == (201, other)
    assert client.get(other, headers=releaser).content == DATA
    unknown = {"mount": sha256_digest(b"unknown"), "from": "quality"}
    assert client.post("/v2/other/blobs/uploads/", params=unknown, headers=releaser).status_code == 202


def test_a_large_blob_comes_in_pieces(client: TestClient, releaser: Headers) -> None:
    data = DATA * 700  # 3.5 MB: more than three pieces of the server's own buffer
    answer = client.post(UPLOADS, params={"digest": sha256_digest(data)}, content=data, headers=releaser)
    assert answer.status_code == 201
    assert client.get(answer.headers["location"], headers=releaser).content == data


def test_a_manifest_comes_back_as_it_was_pushed(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    for reference in ("1.0.0", bundle.digest):
        got = client.get(f"/v2/quality/manifests/{reference}", headers=releaser)
        assert (got.content, got.headers["docker-content-digest"]) == (bundle.manifest, bundle.digest)
        assert got.headers["content-type"] == "application/vnd.oci.image.manifest.v1+json"
        head = client.head(f"/v2/quality/manifests/{reference}", headers=releaser)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(bundle.manifest)))
    assert _error(client.get("/v2/quality/manifests/9.9", headers=releaser)) == "MANIFEST_UNKNOWN"


def test_a_manifest_under_another_digest_is_refused(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    answer = put_manifest(client, "quality", sha256_digest(b"x"), bundle.manifest, headers=releaser)
    assert (answer.status_code, _error(answer)) == (400, "DIGEST_INVALID")


def test_tags_come_in_pages(client: TestClient, releaser: Headers) -> None:
    for version in ("1.0", "1.1", "2.0"):
        push_bundle(client, tiny_bundle(version=version), headers=releaser)
    put_manifest(client, "quality", "champion", tiny_bundle(version="1.1").manifest, headers=releaser)
    found, url = [], "/v2/quality/tags/list?n=3"
    while url:
        answer = client.get(url, headers=releaser)
        found.append(answer.json()["tags"])
        url = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert found == [["1.0", "1.1", "2.0"], ["champion"]]
    assert client.get("/v2/quality/tags/list?n=0", headers=releaser).json()["tags"] == []
    assert _error(client.get("/v2/nothing/tags/list", headers=releaser)) == "NAME_UNKNOWN"


def test_referrers_are_found_by_their_subject(client: TestClient, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    document = json.loads(bundle.manifest)
    document["subject"] = {"mediaType": "x/y", "digest": bundle.digest, "size": len(bundle.manifest)}
    document["artifactType"] = "application/vnd.shoal.parity.v1+json"
    document["annotations"] = {"k": "v"}
    raw = json.dumps(document).encode()
    answer = put_manifest(client, "quality", sha256_digest(raw), raw, headers=releaser)
    assert (answer.status_code, answer.headers["oci-subject"]) == (201, bundle.digest)
    index = client.get(f"/v2/quality/referrers/{bundle.digest}", headers=releaser)
    assert index.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    assert index.json()["manifests"] == [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha256_digest(raw),
            "size": len(raw),
            "artifactType": "application/vnd.shoal.parity.v1+json",
            "annotations": {"k": "v"},
        }
    ]
    filtered = client.get(f"/v2/quality/referrers/{bundle.digest}?artifactType=x/none", headers=releaser)
    assert (filtered.json()["manifests"], filtered.headers["oci-filters-applied"]) == ([], "artifactType")
    nobody = client.get(f"/v2/quality/referrers/{sha256_digest(b'x')}", headers=releaser)
    assert (nobody.status_code, nobody.json()["manifests"]) == (200, [])


def test_devices_may_pull_and_never_push(client: TestClient, shoal: Services, releaser: Headers) -> None:
    bundle = tiny_bundle()
    shoal.may_fetch = lambda _session, _device: {bundle.digest}
    push_bundle(client, bundle, headers=releaser)
    basic = base64.b64encode(b"cam-1:device-secret").decode()
    token = client.get("/v2/token", headers={"authorization": f"Basic {basic}"}).json()["token"]
    for credentials in (f"Basic {basic}", f"Bearer {token}"):
        device = {"authorization": credentials}
        assert client.get("/v2/", headers=device).status_code == 200
        assert client.get(f"/v2/quality/manifests/{bundle.digest}", headers=device).content == bundle.manifest
        answer = client.post(UPLOADS, headers=device)
        assert (answer.status_code, _error(answer)) == (403, "DENIED")
        assert put_manifest(client, "quality", "2", bundle.manifest, headers=device).status_code == 403


def test_a_device_pulls_what_it_is_assigned_and_the_rest_is_as_if_it_did_not_exist(
    client: TestClient, shoal: Services, releaser: Headers
) -> None:
    mine, other = tiny_bundle(), tiny_bundle(version="2.0.0", weights=(3.0, 4.0))
    for bundle in (mine, other):
        push_bundle(client, bundle, headers=releaser)
    shoal.may_fetch = lambda _session, device: {mine.digest} if device == "cam-1" else set()
    device = {"authorization": "Basic " + base64.b64encode(b"cam-1:device-secret").decode()}
    with shoal.database.read() as session:
        audited = audit.head(session)
    for digest in mine.blobs:
        assert client.get(f"/v2/quality/blobs/{digest}", headers=device).status_code == 200
    for reference in (mine.digest, "1.0.0"):
        assert client.get(f"/v2/quality/manifests/{reference}", headers=device).status_code == 200
    assert client.get(f"/v2/quality/referrers/{mine.digest}", headers=device).status_code == 200
    foreign = sorted(set(other.blobs) - set(mine.blobs))
    assert foreign
    paths = [f"blobs/{digest}" for digest in foreign]
    paths += [f"manifests/{other.digest}", "manifests/2.0.0", f"referrers/{other.digest}"]
    for path in (*paths, f"manifests/sha256:{64 * '0'}", "manifests/9.9.9"):
        answer = client.get(f"/v2/quality/{path}", headers=device)
        assert (answer.status_code, _error(answer)) == (404, "MANIFEST_UNKNOWN"), path
        assert other.digest not in answer.text
    with shoal.database.read() as session:
        assert audit.head(session) == audited


def test_without_credentials_a_client_is_told_where_to_get_a_token(client: TestClient) -> None:
    answer = client.get("/v2/")
    assert (answer.status_code, _error(answer)) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == 'Bearer realm="http://testserver/v2/token",service="shoal"'
    assert client.get("/v2/token").status_code == 401


@pytest.mark.parametrize("name", ["UPPER", "a..b", "-x", "a" * 200])
def test_names_are_checked(client: TestClient, releaser: Headers, name: str) -> None:
    answer = client.post(f"/v2/{name}/blobs/uploads/", headers=releaser)
    assert (answer.status_code, _error(answer)) == (400, "NAME_INVALID")


@pytest.mark.parametrize("upload", ["nothing", "..%2F..%2Fkeys", "%00"])
def test_uploads_that_were_never_begun(client: TestClient, releaser: Headers, upload: str) -> None:
    assert client.patch(f"{UPLOADS}{upload}", content=b"x", headers=releaser).status_code == 404


def test_a_manifest_that_is_too_large_is_not_read_to_its_end(client: TestClient, releaser: Headers) -> None:
    answer = put_manifest(client, "quality", "1.0", b" " * (4 * 1024**2 + 1), headers=releaser)
    assert (answer.status_code, _error(answer)) == (413, "SIZE_INVALID")


def test_an_index_needs_its_manifests(client: TestClient, releaser: Headers, shoal: Services) -> None:
    bundle = tiny_bundle()
    part = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": bundle.digest, "size": 1}
    index_type = "application/vnd.oci.image.index.v1+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": [part]}).encode()
    answer = put_manifest(client, "quality", "all", raw, headers=releaser, media_type=index_type)
    assert _error(answer) == "MANIFEST_BLOB_UNKNOWN"
    push_bundle(client, bundle, headers=releaser)
    assert put_manifest(client, "quality", "all", raw, headers=releaser, media_type=index_type).status_code == 201
    with shoal.database.read() as session:
        assert oci_store.manifest(session, "quality", "all").media_type == index_type
