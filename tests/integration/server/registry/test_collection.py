"""Garbage collection, quotas and deleting versions: nothing that is needed ever goes."""

import threading

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_server.registry import collection, oci_store, store
from shoal_server.registry.collection import Collector
from shoal_server.registry.needs import Need
from shoal_server.services import Services
from shoal_server.testing.bundles import TinyBundle, push_bundle, put_manifest, tiny_bundle

Headers = dict[str, str]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ALL_OLD = 4_000_000_000.0
"""Later than anything here was touched."""


def collector(shoal: Services) -> Collector:
    return Collector(shoal.database, shoal.blobs, shoal.needs)


def stored(shoal: Services) -> set[str]:
    return {blob.digest for blob in shoal.blobs.stored()}


def whole(shoal: Services, bundle: TinyBundle) -> bool:
    return {*bundle.blobs, bundle.digest} <= stored(shoal)


def upload(client: TestClient, content: bytes, headers: Headers, *, repository: str = "quality") -> httpx2.Response:
    params = {"digest": sha256_digest(content)}
    return client.post(f"/v2/{repository}/blobs/uploads/", params=params, content=content, headers=headers)


def try_artifact(
    client: TestClient, text: bytes, headers: Headers, *, subject: str | None = None, tag: str = ""
) -> tuple[httpx2.Response, list[str]]:
    """Push something that is no model; returns the last answer, and the digests of manifest and blobs."""
    for content in (b"{}", text):
        if (answer := upload(client, content, headers)).status_code != 201:
            return answer, []
    parts = [{"mediaType": "text/plain", "digest": sha256_digest(part), "size": len(part)} for part in (b"{}", text)]
    document = {"schemaVersion": 2, "artifactType": "text/plain", "config": parts[0], "layers": parts[1:]}
    if subject is not None:
        document["subject"] = {"mediaType": MANIFEST, "digest": subject, "size": 1}
    raw = canonical_bytes(document)
    names = [sha256_digest(raw), sha256_digest(b"{}"), sha256_digest(text)]
    return put_manifest(client, "quality", tag or names[0], raw, headers=headers, media_type=MANIFEST), names


def push_artifact(client: TestClient, text: bytes, headers: Headers, *, subject: str | None, tag: str = "") -> str:
    """Push something that is no model; returns its digest."""
    answer, names = try_artifact(client, text, headers, subject=subject, tag=tag)
    assert answer.status_code == 201, answer.text
    return names[0]


def test_what_versions_tags_and_referrers_need_stays(client: TestClient, shoal: Services, releaser: Headers) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    report = push_artifact(client, b"report", releaser, subject=bundle.digest)
    tagged = push_artifact(client, b"tagged", releaser, subject=None, tag="nightly")
    before = stored(shoal)
    assert {report, tagged} < before
    found = collector(shoal).collect(before=ALL_OLD)
    assert (found.blobs, found.manifests, stored(shoal)) == (0, 0, before)


def test_what_nothing_refers_to_goes_after_the_grace_time(
    client: TestClient, shoal: Services, releaser: Headers
) -> None:
    push_bundle(client, tiny_bundle(), headers=releaser)
    kept = stored(shoal)
    upload(client, b"orphan", releaser)
    loose = push_artifact(client, b"loose", releaser, subject=None)
    assert collector(shoal).collect(before=0).blobs == 0
    planned = collector(shoal).plan(before=ALL_OLD)
    assert {sha256_digest(b"orphan"), sha256_digest(b"loose"), loose} <= stored(shoal)
    done = collector(shoal).collect(before=ALL_OLD)
    assert stored(shoal) == kept
    assert (planned.dry_run, planned.blobs, planned.bytes) == (True, done.blobs, done.bytes)
    assert (done.manifests, planned.manifests, done.blobs) == (1, 1, 4)  # the empty config is garbage too
    assert client.get(f"/v2/quality/manifests/{loose}", headers=releaser).status_code == 404


def test_a_store_that_is_slow_holds_pushes_up_for_one_blob_at_a_time(
    client: TestClient, shoal: Services, releaser: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "_AT_ONCE_S", -1.0)  # so any removal takes too long
    bundle, turns = tiny_bundle(), []
    push_bundle(client, bundle, headers=releaser)
    for number in range(4):
        upload(client, b"%d" % number, releaser)
    lock = oci_store.lock_contents
    monkeypatch.setattr(oci_store, "lock_contents", lambda session: turns.append(session) or lock(session))
    total = len(stored(shoal))
    found = collector(shoal).collect(before=ALL_OLD)
    assert (found.blobs, whole(shoal, bundle)) == (4, True)
    assert len(turns) == 1 + total  # one for the rows, then one for each blob


def test_a_needed_digest_that_is_no_version_stays(client: TestClient, shoal: Services, releaser: Headers) -> None:
    loose = push_artifact(client, b"loose", releaser, subject=None)
    shoal.needs = lambda _session: [Need(loose, "device cam-1 (fallback)")]
    assert collector(shoal).collect(before=ALL_OLD).blobs == 0
    assert loose in stored(shoal)


def test_what_a_pusher_was_told_is_there_is_kept_for_its_push(
    client: TestClient, shoal: Services, releaser: Headers, viewer: Headers
) -> None:
    upload(client, b"orphan", releaser)
    digest = sha256_digest(b"orphan")
    shoal.clock.advance(100_000)
    client.head(f"/v2/quality/blobs/{digest}", headers=viewer)
    with shoal.database.read() as session:
        assert oci_store.blob_touched_at(session, "quality", digest) < shoal.clock() - 90_000
    assert client.head(f"/v2/quality/blobs/{digest}", headers=releaser).status_code == 200
    assert collector(shoal).collect(before=shoal.clock() - 86_400).blobs == 0
    assert digest in stored(shoal)


def test_rows_of_before_parts_were_written_down_are_completed(
    client: TestClient, shoal: Services, releaser: Headers
) -> None:
    bundle = tiny_bundle()
    push_bundle(client, bundle, headers=releaser)
    from sqlalchemy import update

    from shoal_server.registry.tables import OciBlob, OciManifest

    with shoal.database.write() as session:
        session.exec(update(OciManifest).values(blobs=[]))
        session.exec(update(OciBlob).values(size=0))
    assert collector(shoal).collect(before=ALL_OLD).blobs == 0
    assert whole(shoal, bundle)
    with shoal.database.read() as session:
        assert oci_store.blob_size(session, "quality", sha256_digest(bundle.config)) == len(bundle.config)


def test_pushes_during_collections_end_whole_or_are_refused(app: FastAPI, shoal: Services, releaser: Headers) -> None:
    """The most hostile collector, without grace: whatever a push was told 201 for must be there in the end."""
    ended = threading.Event()
    accepted: list[list[str]] = []
    refused: list[str] = []

    def push(number: int) -> None:
        http = TestClient(app)
        for version in range(25):
            text = f"{number} {version}".encode()
            answer, names = try_artifact(http, text, releaser, tag=f"t-{number}-{version}")
            if answer.status_code == 201:
                accepted.append(names)
            else:
                refused.append(answer.json()["errors"][0]["code"])

    def collect() -> None:
        while not ended.wait(0.2):
            collector(shoal).collect(before=ALL_OLD)

    pushers = [threading.Thread(target=push, args=(number,)) for number in range(3)]
    hostile = threading.Thread(target=collect)
    for thread in (hostile, *pushers):
        thread.start()
    for thread in pushers:
        thread.join()
    ended.set()
    hostile.join()
    assert accepted
    assert set(refused) <= {"MANIFEST_BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID"}
    assert [names for names in accepted if not set(names) <= stored(shoal)] == []


def test_pushes_within_the_grace_time_never_fail_by_a_collection(
    app: FastAPI, shoal: Services, releaser: Headers
) -> None:
    ended = threading.Event()

    def collect() -> None:
        while not ended.is_set():
            collector(shoal).collect(before=1.0)

    hostile = threading.Thread(target=collect)
    hostile.start()
    http = TestClient(app)
    answers = [push_bundle(http, tiny_bundle(version=f"1.{n}"), headers=releaser).status_code for n in range(5)]
    ended.set()
    hostile.join()
    assert answers == [201] * 5


def delete(client: TestClient, headers: Headers, version: str = "1.0.0") -> httpx2.Response:
    return client.delete(f"/api/v1/models/quality/versions/{version}", headers=headers)


def test_a_version_that_nothing_needs_can_be_deleted_and_its_room_comes_back(
    client: TestClient, shoal: Services, releaser: Headers, viewer: Headers
) -> None:
    old, new = tiny_bundle(), tiny_bundle(version="1.1.0", weights=(3.0, 4.0))
    for bundle in (old, new):
        push_bundle(client, bundle, headers=releaser)
    report = push_artifact(client, b"report", releaser, subject=old.digest)
    assert delete(client, viewer).status_code == 403
    assert delete(client, releaser).status_code == 204
    with shoal.database.read() as session:
        assert store.find_version(session, "quality", "1.0.0") is None
        assert set(shoal.trust.signed_list(session).entries) == {new.digest}
    collector(shoal).collect(before=ALL_OLD)
    assert stored(shoal) == {*new.blobs, new.digest}
    assert client.get(f"/v2/quality/manifests/{report}", headers=releaser).status_code == 404


def test_the_name_of_a_deleted_version_stays_taken_for_its_digest(
    client: TestClient, shoal: Services, releaser: Headers
) -> None:
    push_bundle(client, tiny_bundle(), headers=releaser)
    assert delete(client, releaser).status_code == 204
    other = push_bundle(client, tiny_bundle(weights=(5.0, 6.0)), headers=releaser)
    assert (other.status_code, "versions never change" in other.text) == (409, True)
    assert push_bundle(client, tiny_bundle(), headers=releaser).status_code == 201
    with shoal.database.read() as session:
        assert store.version(session, "quality", "1.0.0").counter == 2  # a counter is never used twice
        assert set(shoal.trust.signed_list(session).entries) == {tiny_bundle().digest}


def test_a_version_that_somebody_needs_is_not_deleted(client: TestClient, shoal: Services, releaser: Headers) -> None:
    push_bundle(client, tiny_bundle(), headers=releaser)
    client.put("/api/v1/models/quality/aliases/champion", json={"version": "1.0.0"}, headers=releaser)
    by_alias = delete(client, releaser)
    assert (by_alias.status_code, by_alias.json()["needed_by"]) == (409, ["alias quality@champion"])
    shown = client.get("/api/v1/models/quality/versions/1.0.0", headers=releaser).json()
    assert shown["needed_by"] == ["alias quality@champion"]
    client.delete("/api/v1/models/quality/aliases/champion", headers=releaser)
    shoal.needs = lambda _session: [Need(tiny_bundle().digest, f"device cam-{n} (active)") for n in range(9)]
    by_devices = delete(client, releaser)
    assert "device cam-0 (active), " in by_devices.json()["detail"]
    assert "and 4 more" in by_devices.json()["detail"]
    with shoal.database.read() as session:
        assert store.find_version(session, "quality", "1.0.0") is not None


@pytest.mark.parametrize("rule", ["registry_quota", "model_quota"])
def test_a_full_quota_names_rule_used_and_allowed(
    client: TestClient, shoal: Services, releaser: Headers, rule: str
) -> None:
    from dataclasses import replace

    shoal.settings = replace(shoal.settings, **{rule: 1000})
    assert upload(client, b"x" * 600, releaser).status_code == 201
    assert upload(client, b"x" * 600, releaser).status_code == 201  # the same again needs no room
    refused = upload(client, b"y" * 600, releaser)
    error = refused.json()["errors"][0]
    assert (refused.status_code, error["code"]) == (413, "DENIED")
    assert {key: error["detail"][key] for key in ("rule", "used", "allowed", "wanted")} == {
        "rule": rule,
        "used": 600,
        "allowed": 1000,
        "wanted": 600,
    }
    assert sha256_digest(b"y" * 600) not in stored(shoal)
    other = upload(client, b"y" * 600, releaser, repository="another")
    assert other.status_code == (413 if rule == "registry_quota" else 201)


def test_a_quota_holds_for_bodies_of_unknown_length_and_gives_their_room_back(
    client: TestClient, shoal: Services, releaser: Headers
) -> None:
    from dataclasses import replace

    shoal.settings = replace(shoal.settings, registry_quota=1000)
    digest = sha256_digest(b"z" * 1500)
    answer = client.post(
        "/v2/quality/blobs/uploads/",
        params={"digest": digest},
        content=iter([b"z" * 700, b"z" * 800]),
        headers=releaser,
    )
    assert (answer.status_code, answer.json()["errors"][0]["detail"]["rule"]) == (413, "registry_quota")
    assert stored(shoal) == set()
