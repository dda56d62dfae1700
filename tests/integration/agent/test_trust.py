"""What the device believes: pinned, verified, never older than what it saw."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from shoal_agent.adapters import succession
from shoal_agent.adapters.durable import move
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.adapters.succession import finish_succession
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.cli import main
from shoal_agent.domain.device import DeviceState
from shoal_agent.errors import NotEnrolledError, TransportError
from shoal_agent.testing import FakeClock, SimulatedServer
from shoal_agent.updating.assignments import AssignmentIntake
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import (
    CallerError,
    DigestMismatchError,
    ExpiredError,
    RollbackError,
    TrustError,
    UnsignedError,
)
from shoal_protocol.trust.assignment import PAYLOAD_TYPE
from shoal_protocol.trust.join_token import parse_join_token


class Place:
    def __init__(self, server, folder) -> None:
        self.server, self.folder = server, folder
        self.clock = FakeClock(time.time())
        self.root = server.trust_files["1.root.json"]
        self.store().pin_root(self.root)

    def store(self, *, url: str | None = None) -> TrustStore:
        http = HttpClient(url or self.server.url, timeout_s=2.0)
        return TrustStore(self.folder, http=http, root_digest=sha256_digest(self.root), clock=self.clock)

    def release(self, version: str) -> str:
        digest = self.server.add_bundle({"README.md": version.encode()})
        return self.server.release(digest, "m", version)


def opened(place, store) -> bytes:
    """Open an assignment with the keys that a store knows."""
    return store.opened(place.server.sign(generation=1), PAYLOAD_TYPE, what="assignment")


@pytest.fixture
def place(tmp_path):
    with SimulatedServer() as server:
        yield Place(server, tmp_path / "trust")


def test_a_refresh_gives_the_signed_releases_and_raises_the_floor(place):
    digest = place.release("1.0")
    found = place.store().refresh()
    assert (found.find(digest).path, found.version) == ("m/1.0", 2)
    assert place.store().targets_version() == 2
    assert place.store().known() == found


def test_the_known_list_and_what_was_signed_for_the_device_need_no_network(place):
    digest = place.release("1.0")
    place.store().refresh()
    offline = place.store(url="http://127.0.0.1:9")
    with pytest.raises(TransportError):
        offline.refresh()
    assert offline.known().find(digest) is not None
    assert opened(place, offline)


def test_without_any_refresh_nothing_is_known_but_the_keys_of_the_pinned_root(place):
    assert place.store().known() is None
    assert opened(place, place.store())


def test_older_metadata_is_refused(place):
    old = dict(place.server.trust_files)
    place.release("1.0")
    place.store().refresh()
    place.server.trust_files = old
    with pytest.raises(RollbackError):
        place.store().refresh()


def test_older_metadata_is_refused_although_the_cache_was_lost(place):
    old = dict(place.server.trust_files)
    place.release("1.0")
    place.store().refresh()
    for path in place.folder.rglob("*.json"):
        if path.name in {"targets.json", "snapshot.json", "timestamp.json"}:
            path.write_bytes(b"")  # what a power cut leaves of an unsynced file
    place.server.trust_files = old
    with pytest.raises(RollbackError, match="already seen 2"):
        place.store().refresh()


def test_a_list_older_than_the_join_token_told_is_refused(place):
    place.store().raise_floors(targets_version=7)
    with pytest.raises(RollbackError, match="already seen 7"):
        place.store().refresh()


def test_a_list_that_nobody_signed_is_refused_and_the_known_one_stays(place):
    digest = place.release("1.0")
    place.store().refresh()
    place.server._signers["targets"] = place.server._signers["root"]
    place.release("1.1")
    with pytest.raises(UnsignedError):
        place.store().refresh()
    assert list(place.store().known().entries) == [digest]


def test_an_expired_list_blocks_and_the_devices_clock_is_asked_only_when_plausible(place):
    place.server.publish(expires=dt.datetime.now(tz=dt.UTC).replace(microsecond=0) - dt.timedelta(days=1))
    with pytest.raises(ExpiredError):
        place.store().refresh()
    place.clock.now -= 40 * 365 * 86_400  # a device that woke in the past believes no signed time yet
    place.store().refresh()
    place.store().raise_floors(time_ms=int(time.time() * 1000))
    with pytest.raises(ExpiredError):
        place.store().known()


def test_another_root_than_the_pinned_is_refused(place):
    (place.folder / "root.pinned.json").write_bytes(place.root + b" ")
    with pytest.raises(DigestMismatchError, match="join token named"):
        place.store().refresh()


def test_a_damaged_floor_is_no_floor_at_zero(place):
    (place.folder / "floor.json").write_bytes(b"{")
    with pytest.raises(TrustError, match="damaged"):
        place.store().refresh()


# The signed time -------------------------------------------------------------------------------------------------

DAY_S = 86_400


def take(place, *, ahead_days: float) -> tuple[object, object]:
    """Take an assignment in that claims to be signed in the future; returns it, or the refusal."""
    place.server.generation += 1
    raw = place.server.sign(generation=place.server.generation, age_s=-ahead_days * DAY_S)
    intake = AssignmentIntake("dev-1", place.store())
    return intake.take(raw, DeviceState()), intake.refusal


def test_a_signed_time_in_the_far_future_is_refused_and_freezes_nothing(place):
    digest = place.release("1.0")
    assert take(place, ahead_days=0)[0] is not None
    for days in (365, 3650):
        assignment, refusal = take(place, ahead_days=days)
        assert (assignment, refusal.code) == (None, "implausible_time")
    assert place.store().refresh().find(digest) is not None


def test_a_device_that_slept_without_a_clock_believes_what_the_release_keys_list_covers(place):
    place.store().raise_floors(time_ms=int((time.time() - 200 * DAY_S) * 1000))
    place.clock.now = 100.0
    place.store().refresh()
    assert take(place, ahead_days=0)[0] is not None
    assert place.store().now_ms() > (time.time() - DAY_S) * 1000


def test_a_thiefs_time_is_forgotten_with_the_stolen_key(place):
    place.clock.now = 100.0  # no clock that could speak against it
    place.store().refresh()
    end_days = (place.store().list_ends_ms() / 1000 - time.time()) / DAY_S
    assert take(place, ahead_days=end_days - 0.5)[0] is not None
    place.server.publish(expires=dt.datetime.now(tz=dt.UTC).replace(microsecond=0) + dt.timedelta(days=0.1))
    with pytest.raises(ExpiredError):
        place.store().refresh()
    place.server.rotate("timestamp", "snapshot")
    assert place.store().refresh().version == place.server._targets.version
    assert place.store().floors().time_ms == 0


def test_a_damaged_cached_root_is_made_whole_when_the_next_document_comes(place):
    place.server.rotate("timestamp")
    place.store().refresh()
    cached = next((place.folder / "metadata" / "root_history").glob("2.root.json"))
    cached.write_bytes(b'{"signed": ')
    assert take(place, ahead_days=0)[0] is not None


# Joining --------------------------------------------------------------------------------------------------------


def joined(server, state, **options):
    named = {"name": "cam-1", "labels": {}, "facts": {}, "clock": time.time, **options}
    return join(server.url, server.join_token, state, **named)


def test_joining_pins_the_root_keeps_the_key_and_stores_the_identity_last(tmp_path):
    with SimulatedServer() as server:
        outcome = joined(server, tmp_path, labels={"site": "bern"})
    identity = IdentityFolder(tmp_path / "identity").load()
    assert (identity.device, outcome.state, identity.labels) == ("cam-1", "accepted", {"site": "bern"})
    for secret in ("device.json", "key.pem"):
        assert (tmp_path / "identity" / secret).stat().st_mode & 0o077 == 0
    assert parse_join_token(server.join_token).root_digest == identity.root_digest


def test_a_folder_joins_once(tmp_path):
    with SimulatedServer() as server:
        joined(server, tmp_path)
        with pytest.raises(CallerError, match="belongs to the device 'cam-1' already"):
            joined(server, tmp_path)


def files(state):
    return {path.relative_to(state): path.read_bytes() for path in state.rglob("*") if path.is_file()}


@pytest.fixture
def used(tmp_path):
    """The state folder of a device that has something to tell."""
    with SimulatedServer() as server:
        joined(server, tmp_path)
    for name in ("spool.db", "spool.db-wal", "labels.db", "counting/task.json", "blobs/model"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_an_identity_is_given_up_only_once_there_is_another(used):
    before = files(used)
    with SimulatedServer() as other:
        other.faults.status = 503
        with pytest.raises(TransportError):
            joined(other, used, name="cam-2", again=True)
    with pytest.raises(TransportError):
        join("http://127.0.0.1:9", other.join_token, used, name=None, labels={}, facts={}, clock=time.time, again=True)
    assert before.items() <= files(used).items()
    with SimulatedServer() as other:
        joined(other, used, name="cam-2", again=True)
    _is_the_new_device(used, other)


def _is_the_new_device(state, server):
    identity = IdentityFolder(state / "identity").load()
    assert (identity.device, identity.root_digest) == ("cam-2", parse_join_token(server.join_token).root_digest)
    assert sha256_digest((state / "trust" / "root.pinned.json").read_bytes()) == identity.root_digest
    assert {path.name for path in state.iterdir()} == {"identity", "trust", "blobs", "lock"}


@pytest.mark.parametrize("turn", range(4))
def test_a_cut_while_one_identity_takes_the_place_of_another_is_made_good_by_the_start(used, monkeypatch, turn):
    moves = []

    def cut(source, target):
        if len(moves) == turn:
            raise KeyboardInterrupt
        move(source, target)
        moves.append(target.name)
        if target.name == "identity":
            raise KeyboardInterrupt

    with SimulatedServer() as other:
        monkeypatch.setattr(succession, "move", cut)
        with pytest.raises(KeyboardInterrupt):
            joined(other, used, name="cam-2", again=True)
    assert moves == ["identity.old", "trust", "identity"][:turn]
    monkeypatch.undo()
    finish_succession(used)
    if turn == 0:  # not decided yet
        assert IdentityFolder(used / "identity").load().device == "cam-1"
        assert (used / "spool.db").exists()
    else:
        _is_the_new_device(used, other)


def test_a_device_whose_next_identity_waits_has_joined_already(used, capsys):
    (used / "identity").rename(used / "identity.new")
    assert main(["join", "http://127.0.0.1:9", "--token", "x", "--state", str(used), "--if-needed"]) == 0
    assert "cam-1 already" in capsys.readouterr().out


def test_another_server_than_the_tokens_is_not_joined(tmp_path):
    with SimulatedServer() as right, SimulatedServer() as wrong:
        with pytest.raises(DigestMismatchError):
            join(wrong.url, right.join_token, tmp_path, name=None, labels={}, facts={}, clock=time.time)
        assert not any("enrol" in path for _, path, _ in wrong.requests)
    with pytest.raises(NotEnrolledError):
        IdentityFolder(tmp_path / "identity").load()


def test_a_join_that_broke_off_can_be_repeated_with_the_same_key(tmp_path):
    with SimulatedServer() as server:
        server.faults.status = 503
        with pytest.raises(TransportError):
            joined(server, tmp_path)
        server.faults.status = None
        IdentityFolder(tmp_path / "identity")
        joined(server, tmp_path)
    assert IdentityFolder(tmp_path / "identity").key() is not None


def test_no_network_is_told_with_advice(tmp_path):
    with SimulatedServer() as server:
        token = server.join_token
    with pytest.raises(TransportError) as caught:
        join("http://127.0.0.1:9", token, tmp_path, name=None, labels={}, facts={}, clock=time.time)
    assert caught.value.hint
