"""What every state file, blob store and spool promises: the real ones and the fakes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shoal_agent.adapters import durable
from shoal_agent.adapters.blob_store import FolderBlobStore
from shoal_agent.adapters.spool import SqliteSpool
from shoal_agent.adapters.state_file import StateFile
from shoal_agent.domain.coarsening import Span
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, SlotFault, SlotState, Target
from shoal_agent.domain.trial import Trial
from shoal_agent.ports import Shed
from shoal_agent.testing import MemoryBlobStore, MemorySpool, MemoryStateFile
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.manifest import Descriptor, encode_manifest
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.mqtt.topics import Up

A = "sha256:" + "a" * 64


@pytest.fixture(params=["real", "fake"])
def kind(request):
    return request.param


# State file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def state_file(kind, tmp_path):
    return StateFile(tmp_path) if kind == "real" else MemoryStateFile()


def full_state() -> DeviceState:
    slot = Slot(
        state=SlotState.TRIAL,
        since=12.5,
        active=A,
        trial=Trial(left=2, predictions=5, elapsed_s=0.25),
        target=Target(A, "q:1", 3),
        bad={A: SlotFault("code", "why", A, 2)},
    )
    return DeviceState(7, "hash", {"quality": slot})


def test_a_new_state_file_holds_nothing(state_file):
    assert state_file.load() is None


def test_what_was_saved_is_loaded(state_file):
    state_file.save(DeviceState(1))
    state_file.save(full_state())
    assert state_file.load() == full_state()


# Blob store -----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(kind, tmp_path):
    return FolderBlobStore(tmp_path) if kind == "real" else MemoryBlobStore(tmp_path)


def stored(store, files: dict[str, bytes]) -> str:
    raw = encode_manifest(build_manifest(files, config=b"{}"))
    for data in (*files.values(), b"{}"):
        blob = Descriptor("x", sha256_digest(data), len(data))
        if not store.has(blob):
            store.part(blob.digest).write_bytes(data)
            store.adopt(blob)
    return store.add_bundle(raw)


def test_a_part_is_taken_over_only_when_it_is_the_blob(store):
    blob = Descriptor("x", sha256_digest(b"right"), 5)
    for wrong in (b"wrong", b"righ", b"right!"):
        store.part(blob.digest).write_bytes(wrong)
        with pytest.raises(DigestMismatchError):
            store.adopt(blob)
        assert not store.part(blob.digest).exists()
        assert not store.has(blob)
    store.part(blob.digest).write_bytes(b"right")
    store.adopt(blob)
    assert store.has(blob)
    assert store.read(blob.digest) == b"right"
    assert not store.part(blob.digest).exists()


def test_a_blob_that_is_not_there_is_not_found(store):
    with pytest.raises(FileNotFoundError):
        store.read(A)
    with pytest.raises(FileNotFoundError):
        store.manifest_bytes(A)
    assert store.manifest(A) is None
    assert not store.intact(A)


def test_a_bundle_is_there_only_when_all_its_files_are(store):
    raw = encode_manifest(build_manifest({"bundle.json": b"1"}, config=b"{}"))
    with pytest.raises(DigestMismatchError):
        store.add_bundle(raw)
    assert store.bundles() == []
    digest = stored(store, {"bundle.json": b"1"})
    assert store.bundles() == [digest]
    assert store.manifest_bytes(digest) == raw
    assert list(store.manifest(digest).files()) == ["bundle.json"]
    assert store.intact(digest)


def test_a_bundle_is_whole_without_what_is_not_needed_here(kind, tmp_path):
    def needed(manifest, _read):
        return tuple(layer for path, layer in manifest.files().items() if path != "model/int8.onnx")

    store = (FolderBlobStore if kind == "real" else MemoryBlobStore)(tmp_path, needed=needed)
    files = {"bundle.json": b"1", "model/model.onnx": b"32", "model/int8.onnx": b"8"}
    raw = encode_manifest(build_manifest(files, config=b"{}"))
    for content in (b"1", b"32"):
        blob = Descriptor("x", sha256_digest(content), len(content))
        store.part(blob.digest).write_bytes(content)
        store.adopt(blob)
    digest = store.add_bundle(raw)
    assert store.intact(digest)
    assert store.sweep({digest}) == 0


def test_sweeping_keeps_what_it_is_told_and_the_files_they_share(store):
    old = stored(store, {"bundle.json": b"shared", "model/model.onnx": b"old"})
    new = stored(store, {"bundle.json": b"shared", "model/model.onnx": b"new"})
    store.part(A).write_bytes(b"under way")
    assert store.sweep({new}, parts={A}) == 2
    assert store.bundles() == [new]
    assert store.intact(new)
    assert not store.intact(old)
    assert not store.has(Descriptor("x", sha256_digest(b"old"), 3))
    assert store.part(A).exists()
    assert store.sweep({new}) == 1
    assert not store.part(A).exists()


def test_there_is_room(store):
    assert store.free_bytes() > 0


# Spool ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spool(kind, tmp_path):
    made = (
        SqliteSpool(tmp_path / "spool.db", budget_bytes=100, new_epoch=lambda: "0123456789abcdef")
        if kind == "real"
        else MemorySpool(budget_bytes=100, epoch="0123456789abcdef")
    )
    yield made
    made.close()


def put(spool, text: bytes = b"m", *, kind: Up = Up.PROFILE, key: str | None = None):
    return spool.append(kind, lambda seq: b"%s%d" % (text, seq), key=key)


def test_numbers_grow_and_messages_know_theirs(spool):
    assert [put(spool), put(spool, kind=Up.EVENT), put(spool)] == [1, 2, 3]
    assert spool.waiting() == [1, 2, 3]
    assert spool.waiting(limit=2) == [1, 2]
    assert [(m.seq, m.kind, m.body) for m in spool.read([3, 2, 9])] == [(2, Up.EVENT, b"m2"), (3, Up.PROFILE, b"m3")]


def test_a_key_is_stored_once_even_after_its_acknowledgement(spool):
    assert put(spool, key="k") == 1
    assert put(spool, key="k") is None
    spool.acknowledge(Ack(epoch=spool.epoch, through=1))
    assert put(spool, key="k") is None
    assert put(spool, key="other") == 2


def test_a_message_that_can_not_be_built_takes_no_number(spool):
    def fail(seq):
        raise ValueError(seq)

    with pytest.raises(ValueError, match="1"):
        spool.append(Up.EVENT, fail)
    assert put(spool) == 1


def test_only_the_servers_acknowledgement_of_this_epoch_deletes(spool):
    for _ in range(6):
        put(spool)
    assert spool.acknowledge(Ack(epoch="f" * 16, through=6)) == 0
    assert spool.acknowledge(Ack(epoch=spool.epoch, through=2, ranges=((4, 5), (9, 9)))) == 4
    assert spool.waiting() == [3, 6]
    assert spool.acknowledge(Ack(epoch=spool.epoch, through=2, ranges=((4, 5),))) == 0


def test_beyond_the_budget_the_oldest_are_dropped_counted_and_told(spool):
    told = []

    def tell(seq, dropped, rows):
        told.append((seq, dropped, rows))
        return b"lost"

    shed = Shed(tell)
    for _ in range(4):
        put(spool, b"x" * 30)
    assert spool.make_room(shed) == [1]
    assert told == [(5, [1], 0)]
    assert spool.waiting() == [2, 3, 4, 5]
    usage = spool.usage()
    assert (usage.windows, usage.dropped) == (3, 1)
    assert usage.size_bytes == 3 * 31 + 4
    assert spool.make_room(shed) == []


def test_what_is_given_up_is_counted_and_told_if_asked(spool):
    for _ in range(4):
        put(spool)
    told = []
    assert spool.give_up([3, 1, 9], lambda seq, dropped, rows: told.append((seq, dropped)) or b"lost") == [1, 3]
    assert (told, spool.waiting()) == ([(5, [1, 3])], [2, 4, 5])
    assert spool.give_up([2], None) == [2]
    assert spool.give_up([2], lambda seq, dropped, rows: b"never") == []
    assert (spool.waiting(), spool.usage().dropped) == ([4, 5], 3)


def test_a_spool_that_keeps_its_budget_drops_nothing(spool):
    put(spool)
    assert spool.make_room(Shed(lambda seq, dropped, rows: b"")) == []


def windows(spool, count: int, *, stream: str = "s", size: int = 10) -> None:
    """Put windows of one second, one after the other, whose body is their count of rows."""
    for _ in range(count):
        spool.append(
            Up.PROFILE,
            lambda seq: b"1".rjust(size, b"0"),
            span=Span(stream, 1000 * len(spool.waiting()), 1000, rows=1),
        )


def added_up(told):
    def merge(seq, bodies):
        return b"%010d" % sum(map(int, bodies))

    def tell_merged(seq, parts):
        told["merged"] += parts
        return b"m"

    def tell_lost(seq, dropped, rows):
        told["lost"] += dropped
        told["rows"] += rows
        return b"l"

    return Shed(tell_lost, merge, tell_merged)


def test_a_full_spool_merges_what_was_never_handed_over_and_loses_nothing(spool):
    told = {"merged": [], "lost": [], "rows": 0}
    windows(spool, 12)
    assert spool.make_room(added_up(told)) == []
    kept = [message for message in spool.read(spool.waiting()) if message.kind is Up.PROFILE]
    assert sum(int(message.body) for message in kept) == 12
    assert 1 < len(kept) < 10
    numbers = {message.seq for message in kept}
    assert set(told["merged"]) == set(range(1, 13)) - numbers
    assert numbers.isdisjoint(told["merged"])
    assert spool.usage().dropped == 0


def test_what_was_handed_over_is_never_merged_and_goes_whole(spool):
    told = {"merged": [], "lost": [], "rows": 0}
    windows(spool, 12)
    spool.hand_over([12])
    assert spool.make_room(added_up(told)) == [1, 2]
    assert (told["merged"], told["lost"], told["rows"]) == ([], [1, 2], 2)
    windows(spool, 5)
    spool.make_room(added_up(told))
    assert set(told["merged"]).isdisjoint(range(1, 13))
    assert told["merged"]


def test_windows_that_can_not_be_merged_are_dropped_at_last(spool):
    told = {"merged": [], "lost": [], "rows": 0}

    def refuse(seq, bodies):
        raise ContentError("of different layouts")

    windows(spool, 12)
    shed = added_up(told)
    assert spool.make_room(Shed(shed.tell_lost, refuse, shed.tell_merged)) == [1, 2]
    assert told["merged"] == []
    assert spool.append(Up.EVENT, lambda seq: b"x") == 14


def test_an_acknowledgement_beyond_all_bounds_harms_nothing(spool):
    put(spool)
    assert spool.acknowledge(Ack(epoch=spool.epoch, through=2**200, ranges=((2**99, 2**100),))) == 1


# What only the real ones have -----------------------------------------------------------------------------------


def test_numbers_and_epoch_outlive_the_process_and_boot_grows(tmp_path: Path):
    epochs = iter(["a" * 16, "b" * 16])
    first = SqliteSpool(tmp_path / "s", budget_bytes=100, new_epoch=lambda: next(epochs))
    put(first)
    first.acknowledge(Ack(epoch=first.epoch, through=1))
    first.close()
    second = SqliteSpool(tmp_path / "s", budget_bytes=100, new_epoch=lambda: next(epochs))
    assert (second.epoch, first.boot, second.boot) == ("a" * 16, 1, 2)
    assert put(second) == 2
    second.close()


def test_what_was_handed_over_is_remembered_over_restarts(tmp_path: Path):
    path, told = tmp_path / "s", {"merged": [], "lost": [], "rows": 0}
    first = SqliteSpool(path, budget_bytes=100, new_epoch=lambda: "a" * 16)
    windows(first, 8)
    first.hand_over([6])
    first.close()
    second = SqliteSpool(path, budget_bytes=60, new_epoch=lambda: "a" * 16)
    second.make_room(added_up(told))
    assert set(told["merged"]) <= {7, 8}
    second.close()


def test_a_file_of_an_earlier_version_merges_none_of_its_windows(tmp_path: Path):
    path, told = tmp_path / "s", {"merged": [], "lost": [], "rows": 0}
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE items (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT, size INTEGER NOT NULL,"
            " body BLOB NOT NULL); CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "INSERT INTO facts VALUES ('epoch', 'aaaaaaaaaaaaaaaa'), ('boot', '1'), ('seq', '2'), ('dropped', '0');"
            "INSERT INTO items VALUES (1, 'profile', NULL, 40, x'30'), (2, 'profile', NULL, 40, x'30');"
        )
    spool = SqliteSpool(path, budget_bytes=100, new_epoch=lambda: "b" * 16)
    assert (spool.epoch, spool.boot) == ("a" * 16, 2)
    windows(spool, 8)
    spool.make_room(added_up(told))
    assert set(told["merged"]).isdisjoint({1, 2})
    spool.close()


def test_a_damaged_spool_is_put_aside_and_begins_a_new_epoch(tmp_path: Path):
    path = tmp_path / "spool.db"
    SqliteSpool(path, budget_bytes=100, new_epoch=lambda: "a" * 16).close()
    path.write_bytes(b"not a database" * 100)
    again = SqliteSpool(path, budget_bytes=100, new_epoch=lambda: "b" * 16)
    assert (again.epoch, again.boot) == ("b" * 16, 1)
    assert put(again) == 1
    again.close()
    assert (tmp_path / "spool.db.damaged").exists()


def test_damage_to_a_stored_file_is_found_and_put_away(tmp_path: Path):
    store = FolderBlobStore(tmp_path)
    digest = stored(store, {"bundle.json": b"1", "model/model.onnx": b"weights"})
    path = store.path(sha256_digest(b"weights"))
    path.write_bytes(b"weightz")
    assert not store.intact(digest)
    assert not path.exists()


@pytest.mark.parametrize("name", ["state.json", "state.prev"])
def test_one_damaged_state_file_is_made_good_by_the_other(tmp_path: Path, name: str):
    files = StateFile(tmp_path)
    files.save(DeviceState(1))
    files.save(DeviceState(2))
    files.save(DeviceState(3))
    raw = (tmp_path / name).read_bytes()
    for at in range(len(raw)):
        (tmp_path / name).write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        expected = 2 if name == "state.json" else 3
        assert StateFile(tmp_path).load() == DeviceState(expected)
    for length in (0, 1, len(raw) - 1):
        (tmp_path / name).write_bytes(raw[:length])
        assert StateFile(tmp_path).load() == DeviceState(expected)


def test_a_state_whose_saving_failed_late_is_replaced_even_by_the_one_before(tmp_path: Path, monkeypatch):
    files = StateFile(tmp_path)
    files.save(DeviceState(1))
    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_folder", lambda path: (_ for _ in ()).throw(OSError(5, "input/output error")))
        with pytest.raises(OSError, match="input/output"):
            files.save(DeviceState(2))
    files.save(DeviceState(1))
    assert StateFile(tmp_path).load() == DeviceState(1)


def test_a_state_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path: Path, monkeypatch):
    files = StateFile(tmp_path)
    files.save(DeviceState(1))
    files.save(DeviceState(2))
    for failing in (1, 2):  # while the previous is put aside, and while the new one is written
        left = iter([True] * (failing - 1))
        real = durable.os.fsync

        def full(descriptor, left=left, real=real):
            if not next(left, False) and Path(f"/proc/self/fd/{descriptor}").resolve().is_file():
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(durable.os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                files.save(DeviceState(3))
        assert StateFile(tmp_path).load() == DeviceState(2)
    files.save(DeviceState(4))
    assert StateFile(tmp_path).load() == DeviceState(4)
