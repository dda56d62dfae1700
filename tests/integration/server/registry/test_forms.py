"""Coded forms of blobs: made in the background, chosen by what a client takes, and collected with their blobs."""

from __future__ import annotations

import base64
import errno
import random
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from shoal_protocol.bundle.codings import DCZ, ZSTD, Decoder, dictionary_header
from shoal_protocol.bundle.layout import README
from shoal_protocol.canonical import sha256_digest
from shoal_server.registry import forms
from shoal_server.registry.collection import Collector
from shoal_server.registry.form_making import FormMaker
from shoal_server.services import Services
from shoal_server.testing.bundles import push_bundle, tiny_bundle

Headers = dict[str, str]
NOISE = random.Random(1).randbytes(20_000)
OLD, NEW = NOISE, NOISE[:9_000] + b"!" + NOISE[9_000:]
TEXT = b"the same words again and again, " * 1_000
ALL_OLD = 4_000_000_000.0


@pytest.fixture
def maker(shoal: Services) -> FormMaker:
    made = FormMaker(shoal.database, shoal.blobs, shoal.bundles, clock=shoal.clock, signals=shoal.signals)
    shoal.wish_form = made.wish
    return made


class Puller:
    """Pushes and pulls blobs of one repository."""

    def __init__(self, client: TestClient, headers: Headers) -> None:
        self.client, self.headers = client, headers

    def push(self, content: bytes) -> str:
        digest = sha256_digest(content)
        params = {"digest": digest}
        where = "/v2/quality/blobs/uploads/"
        assert self.client.post(where, params=params, content=content, headers=self.headers).status_code == 201
        return digest

    def get(self, digest: str, accept: str = "zstd, dcz", base: str = "", **more: str):
        headers = {**self.headers, "accept-encoding": accept, **more}
        if base:
            headers["available-dictionary"] = dictionary_header(base)
        with self.client.stream("GET", f"/v2/quality/blobs/{digest}", headers=headers) as answer:
            raw = b"".join(answer.iter_raw())
        return answer, raw


@pytest.fixture
def puller(client: TestClient, releaser: Headers) -> Puller:
    return Puller(client, releaser)


def decoded(raw: bytes, coding: str, content: bytes, base: bytes | None = None) -> bytes:
    decoder = Decoder(coding, size=len(content), dictionary=None if base is None else (sha256_digest(base), base))
    found = b"".join(decoder.feed(raw))
    decoder.finish()
    return found


def test_the_second_to_ask_gets_the_compressed_form(puller: Puller, maker: FormMaker) -> None:
    digest = puller.push(TEXT)
    first, raw = puller.get(digest)
    assert (raw, first.headers.get("content-encoding")) == (TEXT, None)
    maker.turn()
    answer, raw = puller.get(digest)
    assert (answer.headers["content-encoding"], decoded(raw, ZSTD, TEXT)) == ("zstd", TEXT)
    assert answer.headers["vary"] == forms.VARY
    assert answer.headers["etag"] not in {first.headers["etag"], ""}
    assert int(answer.headers["content-length"]) == len(raw) < len(TEXT)


@pytest.mark.parametrize("accept", ["identity", "", "gzip", "zstd;q=0", "dcz"])
def test_who_does_not_ask_for_it_gets_the_blob_as_it_is(puller: Puller, maker: FormMaker, accept: str) -> None:
    digest = puller.push(TEXT)
    maker.wish("quality", digest, "")
    maker.turn()
    answer, raw = puller.get(digest, accept)
    assert (raw, answer.headers.get("content-encoding")) == (TEXT, None)
    head = puller.client.head(f"/v2/quality/blobs/{digest}", headers={**puller.headers, "accept-encoding": "zstd"})
    assert head.headers["content-length"] == str(len(TEXT))


def test_against_what_the_device_holds_little_travels(puller: Puller, maker: FormMaker) -> None:
    old, new = puller.push(OLD), puller.push(NEW)
    puller.get(new, base=old)
    maker.turn()
    answer, raw = puller.get(new, base=old)
    assert answer.headers["content-encoding"] == DCZ
    assert decoded(raw, DCZ, NEW, OLD) == NEW
    assert len(raw) < 300
    for other in (puller.get(new), puller.get(new, "zstd", base=old)):  # noise alone is not worth compressing
        assert (other[1], other[0].headers.get("content-encoding")) == (NEW, None)


def test_a_form_is_resumed_like_any_file(puller: Puller, maker: FormMaker) -> None:
    digest = puller.push(TEXT)
    maker.wish("quality", digest, "")
    maker.turn()
    whole, raw = puller.get(digest)
    etag = whole.headers["etag"]
    rest, tail = puller.get(digest, range="bytes=10-", **{"if-range": etag})
    assert (rest.status_code, tail, rest.headers["content-encoding"]) == (206, raw[10:], "zstd")
    plain, body = puller.get(digest, "identity", range="bytes=10-", **{"if-range": etag})
    assert (plain.status_code, body) == (200, TEXT)
    assert puller.get(digest, **{"if-none-match": etag})[0].status_code == 304


def test_a_push_has_the_forms_made_before_anybody_asks(puller: Puller, shoal: Services, maker: FormMaker) -> None:
    for version, readme in (("1.0.0", OLD), ("1.1.0", NEW)):
        bundle = tiny_bundle(version=version)
        bundle.files[README] = readme
        assert push_bundle(puller.client, bundle, headers=puller.headers).status_code == 201
    maker.turn()
    answer, raw = puller.get(sha256_digest(NEW), base=sha256_digest(OLD))
    assert (answer.headers["content-encoding"], decoded(raw, DCZ, NEW, OLD)) == (DCZ, NEW)


def test_only_blobs_of_the_repository_are_patched_from_and_few(
    puller: Puller, shoal: Services, maker: FormMaker
) -> None:
    new = puller.push(NEW)
    maker.wish("quality", new, sha256_digest(b"not here"))
    maker.turn()
    with shoal.database.read() as session:
        assert forms.patches(session, new) == 0
    for number in range(forms.PATCHES_A_BLOB + 3):
        maker.wish("quality", new, puller.push(OLD + bytes([number])))
    maker.turn()
    with shoal.database.read() as session:
        assert forms.patches(session, new) == forms.PATCHES_A_BLOB
        asked = forms.Accepted(alone=True, base=sha256_digest(b"one more"))
        assert forms.choose(session, new, asked).missing == ("",)  # nobody is asked for one more


def test_a_download_wishes_only_for_what_could_be_made(puller: Puller, shoal: Services) -> None:
    wishes: list[tuple[str, str, str]] = []
    shoal.wish_form = lambda *wish: wishes.append(wish)
    small, new, old = puller.push(b"small " * 100), puller.push(NEW), puller.push(OLD)
    puller.get(small, base=old)
    assert wishes == []
    puller.get(new, "dcz", base=sha256_digest(b"not here"))
    puller.get(new, "dcz", base=small)
    puller.get(new, "dcz", base=new)
    assert wishes == []
    puller.get(new, base=old)
    assert sorted(wishes) == [("quality", new, ""), ("quality", new, old)]


def test_forms_stay_and_go_with_their_blobs(puller: Puller, shoal: Services, maker: FormMaker) -> None:
    for version, readme in (("1.0.0", OLD), ("1.1.0", NEW), ("1.2.0", TEXT)):
        bundle = tiny_bundle(version=version)
        bundle.files[README] = readme
        assert push_bundle(puller.client, bundle, headers=puller.headers).status_code == 201
        maker.turn()
    lone = puller.push(TEXT + b"!")
    maker.wish("quality", lone, "")
    maker.turn()
    collector = Collector(shoal.database, shoal.blobs, shoal.needs)
    before = {blob.digest for blob in shoal.blobs.stored()}
    planned = collector.plan(before=shoal.clock() - 1)
    found = collector.collect(before=shoal.clock() - 1)
    assert (planned.blobs, found.blobs) == (0, 0)
    found = collector.collect(before=shoal.clock() + 1)  # the lone blob, which no manifest has, and its form
    left = {blob.digest for blob in shoal.blobs.stored()}
    assert (found.blobs, lone in left, len(left)) == (2, False, len(before) - 2)
    assert puller.get(sha256_digest(NEW), base=sha256_digest(OLD))[0].headers["content-encoding"] == DCZ
    assert collector.plan(before=ALL_OLD).blobs == 1  # patches grow old
    assert collector.collect(before=ALL_OLD).blobs == 1
    assert puller.get(sha256_digest(NEW), base=sha256_digest(OLD))[1] == NEW
    assert puller.get(sha256_digest(TEXT))[0].headers["content-encoding"] == ZSTD


def test_a_form_whose_bytes_are_lost_is_not_sent(puller: Puller, shoal: Services, maker: FormMaker) -> None:
    digest = puller.push(TEXT)
    maker.wish("quality", digest, "")
    maker.turn()
    form = puller.get(digest)[0].headers["etag"].strip('"')
    assert shoal.blobs.remove(form, before=ALL_OLD)
    assert puller.get(digest)[1] == TEXT


def test_a_full_disk_costs_no_more_than_the_form(
    puller: Puller, shoal: Services, maker: FormMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = puller.push(TEXT)
    maker.wish("quality", digest, "")

    def full(*_args: object, **_kwargs: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shoal.blobs, "append", full)
        maker.turn()
    assert puller.get(digest)[1] == TEXT  # which asks for the form again
    maker.turn()
    assert puller.get(digest)[0].headers["content-encoding"] == ZSTD


def test_the_end_of_the_program_ends_the_work(puller: Puller, shoal: Services, maker: FormMaker) -> None:
    digest = puller.push(TEXT)
    maker.wish("quality", digest, "")
    shoal.signals.close()
    maker.turn()
    assert puller.get(digest)[1] == TEXT
    assert [blob.digest for blob in shoal.blobs.stored()] == [digest]


def test_devices_are_told_of_mirrors_with_a_manifest(
    puller: Puller, client: TestClient, shoal: Services, releaser: Headers
) -> None:
    bundle = tiny_bundle()
    assert push_bundle(client, bundle, headers=releaser).status_code == 201
    shoal.settings = replace(shoal.settings, mirrors=("https://a.example", "https://b.example/copy/"))
    shoal.may_fetch = lambda _session, _device: {bundle.digest}
    where = f"/v2/quality/manifests/{bundle.digest}"
    device = {"authorization": "Basic " + base64.b64encode(b"cam-1:device-secret").decode()}
    assert "link" not in client.get(where, headers=releaser).headers
    link = client.get(where, headers=device).headers["link"]
    assert link == (f'<https://a.example{where}>; rel="duplicate", <https://b.example/copy{where}>; rel="duplicate"')
