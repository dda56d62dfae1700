"""A device without a network: what is brought to it is verified like what is pulled, and its mail is its own."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.credentials import Credentials
from shoal_agent.adapters.device_key import new_key
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.adapters.parcel_file import ParcelFile
from shoal_agent.errors import DiskFullError, ParcelError
from shoal_agent.status import stored_status
from shoal_agent.testing import MemorySpool
from shoal_agent.updating.mail import Mail
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import DigestMismatchError, ExpiredError, RollbackError, TrustError, UnsignedError
from shoal_protocol.mqtt.messages import parse_message
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.parcel import ABOUT, DESIRED, RECEIPT, blob_member, parse_letter, read_body, signed_bytes


def write(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


@pytest.fixture
def offline(world):
    """A device that has joined and since then sees nobody: no link, and a server that answers 503 to everything."""
    world.overrides = msgspec.structs.replace(world.overrides, link=lambda _identity: None)
    world.server.faults.status = 503
    return world


def brought(world, tmp_path: Path, version: str = "1.0", weight: float = 3.0) -> tuple[str, Path]:
    """A new wish, and the parcel that brings it."""
    digest = world.pack(weight, version)
    world.assign(digest)
    return digest, write(tmp_path / f"{version}.parcel", world.server.parcel())


def runs(agent, digest: str) -> bool:
    slot = agent.status()["slots"].get("quality", {})
    return slot.get("active") == digest and slot["state"] == "idle"


def test_a_parcel_brings_all_that_a_device_without_network_needs(offline, tmp_path):
    offline.run_real_self_tests()
    digest, parcel = brought(offline, tmp_path)
    with offline.agent() as agent:
        told = agent.import_parcel(parcel)
        assert (told["generation"], told["new"], list(told["slots"])) == (1, True, ["quality"])
        parcel.unlink()  # the stick may be pulled at once
        offline.until(lambda: runs(agent, digest), "the model")
        second, parcel = brought(offline, tmp_path, "1.1", 5.0)
        assert agent.import_parcel(parcel)["new"]
        assert not agent.import_parcel(parcel)["new"]
        offline.until(lambda: runs(agent, second), "the second model")
        assert agent.status()["slots"]["quality"]["previous"] == digest
    assert not any("/blobs/" in path or "/manifests/" in path for _, path, _ in offline.server.requests)


def test_what_is_not_for_this_device_or_was_changed_is_refused_and_changes_nothing(offline, tmp_path):
    first, parcel = brought(offline, tmp_path)
    with offline.agent() as agent:
        agent.import_parcel(parcel)
        offline.until(lambda: runs(agent, first), "the model")
        second, _ = brought(offline, tmp_path, "1.1", 5.0)
        others = offline.server.receipt(device="dev-2")
        good = offline.server.parcel()
        manifest = blob_member(second)
        blob = next(name for name, raw in good.items() if name.startswith("blobs/") and b"1.1" in raw)
        about = json.loads(good[ABOUT])
        elsewhere = json.dumps({**about, "device": "dev-2"}).encode()
        theirs = offline.server.sign(generation=9, device="dev-2")
        cases = {
            "for another device": (
                {**good, ABOUT: elsewhere},
                ParcelError,
            ),
            "of a newer form": ({**good, ABOUT: json.dumps({**about, "format": 2}).encode()}, ParcelError),
            "with another's assignment": ({**good, DESIRED: theirs}, UnsignedError),
            "with an assignment of nobody": (
                {**good, DESIRED: offline.server.sign(generation=9, role="targets")},
                UnsignedError,
            ),
            "with an expired assignment": (
                {**good, DESIRED: offline.server.sign(generation=9, age_s=15 * 86_400)},
                ExpiredError,
            ),
            "with an old generation": ({**good, DESIRED: offline.server.sign(generation=1)}, RollbackError),
            "with another's receipt": ({**good, RECEIPT: others}, UnsignedError),
            "with a changed list": ({**good, "trust/timestamp.json": b"{}"}, TrustError),
            "without a list": ({name: raw for name, raw in good.items() if "timestamp" not in name}, None),
            "with a changed manifest": ({**good, manifest: good[manifest][:-2] + b" }"}, DigestMismatchError),
            "with a changed file": ({**good, blob: b"x" * len(good[blob])}, DigestMismatchError),
            "with a cut file": ({**good, blob: good[blob][:-1]}, ParcelError),
            "without a file": ({name: raw for name, raw in good.items() if name != blob}, ParcelError),
        }
        for what, (members, error) in cases.items():
            bad = write(tmp_path / "bad.parcel", members)
            with pytest.raises(error or Exception):
                pytest.fail(f"taken in: {what}, {agent.import_parcel(bad)}")
            slot = agent.status()["slots"]["quality"]
            assert (slot["active"], slot["target"], slot["state"]) == (first, first, "idle"), what
            assert agent.status()["generation"] == 1, what
        agent.import_parcel(write(tmp_path / "good.parcel", good))
        offline.until(lambda: runs(agent, second), "the second model, after all")


def test_a_bundle_that_nobody_signed_is_refused(offline, tmp_path):
    digest = offline.pack(9.0, "9.0", released=False)
    offline.assign(digest)
    with offline.agent() as agent, pytest.raises(UnsignedError):
        agent.import_parcel(write(tmp_path / "p", offline.server.parcel()))


def test_a_parcel_that_was_on_its_way_for_too_long_is_refused(offline, tmp_path):
    _, parcel = brought(offline, tmp_path)
    offline.overrides = msgspec.structs.replace(offline.overrides, clock=lambda: time.time() + 100 * 86_400)
    with offline.agent() as agent, pytest.raises(ExpiredError, match="not believed any more"):
        agent.import_parcel(parcel)


def test_an_older_parcel_after_a_newer_one_is_a_replay(offline, tmp_path):
    _, old = brought(offline, tmp_path)
    _, new = brought(offline, tmp_path, "1.1")
    with offline.agent() as agent:
        agent.import_parcel(new)
        with pytest.raises(RollbackError, match="older than what this device has seen") as caught:
            agent.import_parcel(old)
    assert "needs no parcel" in caught.value.hint


def test_no_room_is_said_before_anything_is_written(offline, tmp_path, monkeypatch):
    _, parcel = brought(offline, tmp_path)
    with offline.agent() as agent:
        monkeypatch.setattr(FolderBlobStore, "free_bytes", lambda _self: 1000)
        with pytest.raises(DiskFullError, match="1000 are free"):
            agent.import_parcel(parcel)


@pytest.mark.parametrize("content", [b"", b"words", b"x" * 2048], ids=["empty", "words", "noise"])
def test_what_is_no_parcel_is_told(tmp_path, content):
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(ParcelError, match="parcel"):
        ParcelFile(path)


def test_a_parcel_reads_regular_files_only(tmp_path, offline):
    members = {name: raw for name, raw in offline.server.parcel().items() if name != DESIRED}
    path = write(tmp_path / "p", members)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo(DESIRED)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with ParcelFile(path) as parcel, pytest.raises(ParcelError, match="has no desired.json"):
        parcel.desired()


def test_a_parcel_repairs_a_bundle_of_which_the_disk_lost_a_file(offline, tmp_path):
    digest, parcel = brought(offline, tmp_path)
    store = FolderBlobStore(offline.state, needed=lambda manifest, _read: manifest.blobs())
    with offline.agent() as agent:
        agent.import_parcel(parcel)
        offline.until(lambda: runs(agent, digest), "the model")
        blob = store.manifest(digest).files()["model/model.onnx"]
        store.path(blob.digest).unlink()
        agent.import_parcel(parcel)
        assert store.has(blob)


def test_mail_holds_all_that_waits_however_much_that_is(tmp_path):
    spool, count = MemorySpool(), 1500
    for at in range(count):
        spool.append(Up.EVENT, lambda _seq, at=at: b"%d" % at)
    mail = Mail("dev-1", spool, standing=list, sign=lambda _body: "00", now_ms=lambda: 0)
    assert mail.write(tmp_path / "mail") == {"event": count}
    lines = (tmp_path / "mail").read_bytes().splitlines()
    messages = [message for line in lines for message in read_body(parse_letter(line).body, device="dev-1")]
    assert [payload for _, payload in messages] == [b"%d" % at for at in range(count)]


def test_mail_is_signed_by_the_key_that_the_server_knows(offline, tmp_path):
    folder = IdentityFolder(offline.state / "identity")
    held = Credentials(folder, folder.load())
    old = held.key()
    new = held.keep_key(new_key())
    held.adopt("new", credential=2, key=new)
    assert signs(offline, tmp_path, old.pem), "until the server has seen the new one"
    held.confirm()
    assert signs(offline, tmp_path, new.pem)


def signs(offline, tmp_path: Path, pem: bytes) -> bool:
    """Whether this key opens the mail that an agent writes now."""
    with offline.agent() as agent:
        agent.export_mail(tmp_path / "mail")
    key = load_pem_private_key(pem, None).public_key()
    try:
        return bool([opened(key, line) for line in (tmp_path / "mail").read_bytes().splitlines()])
    except InvalidSignature:
        return False


def test_mail_is_signed_complete_and_written_again_with_the_same_numbers(offline, tmp_path):
    digest, parcel = brought(offline, tmp_path)
    with offline.agent(window_s=0.2) as agent:
        agent.import_parcel(parcel)
        offline.until(lambda: runs(agent, digest), "the model")
        import numpy as np

        agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})
        offline.until(lambda: agent.status()["spool"]["windows"] == 1, "a window in the spool")
        told = agent.export_mail(tmp_path / "mail")
        assert (told["profile"], told["event"], told["birth"], told["reported"]) == (1, 2, 1, 1)
        agent.export_mail(tmp_path / "again")
        assert agent.status()["spool"]["windows"] == 1
    key = load_pem_private_key((offline.state / "identity" / "key.pem").read_bytes(), None).public_key()
    found = [opened(key, line) for line in (tmp_path / "mail").read_bytes().splitlines()]
    again = [opened(key, line) for line in (tmp_path / "again").read_bytes().splitlines()]
    assert [kind for kind, _ in found[0]] == [Up.BIRTH, Up.REPORTED]
    report = parse_message(*found[0][1])
    assert report.slots["quality"].proven == digest
    assert found[1:] == again[1:]  # the same bytes under the same numbers: the server counts them once
    letter = parse_letter((tmp_path / "mail").read_bytes().splitlines()[1])
    with pytest.raises(InvalidSignature):
        opened(key, msgspec.json.encode({"body": letter.body + " ", "signature": letter.signature}))


def opened(key, line: bytes) -> list[tuple[Up, bytes]]:
    letter = parse_letter(line)
    key.verify(bytes.fromhex(letter.signature), signed_bytes(letter.body), ec.ECDSA(SHA256()))
    return read_body(letter.body, device="dev-1")


def test_the_simulated_parcel_is_what_it_says(offline):
    digest = offline.pack(3.0, "1.0")
    offline.assign(digest)
    assert sha256_digest(offline.server.parcel()[blob_member(digest)]) == digest
    assert stored_status(offline.state)["generation"] == 0
