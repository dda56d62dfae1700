"""The judge in this process and the one in a child say the same, of what is right and of what is wrong."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.judge import InProcessJudge, StoredList
from shoal_agent.adapters.judge_process import ChildJudge
from shoal_agent.testing import SimulatedServer
from shoal_protocol.errors import ShoalError
from shoal_protocol.trust.assignment import PAYLOAD_TYPE, parse_assignment

JUDGES = (InProcessJudge, ChildJudge)


class Place:
    """A server, its pinned root, and a release on its list."""

    def __init__(self, server, folder) -> None:
        self.server, self.folder = server, folder
        self.pinned = server.trust_files["1.root.json"]
        self.digest = server.release(server.add_bundle({"README.md": b"1"}), "m", "1.0")

    def refresh(self, judge, *, url: str = "", ahead_days: float = 0.0) -> StoredList:
        source = HttpClient(url or self.server.url, timeout_s=5.0)
        now_ms = int((time.time() + ahead_days * 86_400) * 1000)
        try:
            return judge.refresh(source, pinned=self.pinned, now_ms=now_ms)
        finally:
            source.close()

    def open(self, judge, raw: bytes) -> bytes:
        return judge.open(raw, PAYLOAD_TYPE, what="assignment", pinned=self.pinned).payload


@pytest.fixture
def place(tmp_path):
    with SimulatedServer() as server:
        yield Place(server, tmp_path)


@pytest.mark.parametrize("kind", JUDGES)
def test_what_is_signed_is_fetched_stored_and_opened(place, kind):
    judge = kind(place.folder / "metadata")
    place.server.rotate("timestamp")
    found = place.refresh(judge)
    assert found.stored.releases.check(place.digest).path == "m/1.0"
    assert judge.recall(pinned=place.pinned) == found
    keys = (place.server._signers["timestamp"].public_key.keyid,)
    assert judge.time_keys(pinned=place.pinned).time_keys == found.time_keys == keys
    payload = place.open(judge, place.server.sign(generation=7))
    assert parse_assignment(payload, device=place.server.device, now_ms=0).generation == 7


def _unsigned(place, judge) -> None:
    place.server._signers["targets"] = place.server._signers["root"]
    place.server.publish()
    place.refresh(judge)


def _older(place, judge) -> None:
    old = dict(place.server.trust_files)
    place.server.publish()
    place.refresh(judge)
    place.server.trust_files = old
    place.refresh(judge)


def _expired(place, judge) -> None:
    place.server.publish(expires=dt.datetime.now(tz=dt.UTC).replace(microsecond=0) + dt.timedelta(days=1))
    place.refresh(judge, ahead_days=2)


def _deep(place, judge) -> None:
    place.server.trust_files["timestamp.json"] = b"[" * 10_000
    place.refresh(judge)


WRONG = {
    "a list that nobody signed": _unsigned,
    "an older list": _older,
    "an expired list": _expired,
    "a document that never ends": _deep,
    "no server": lambda place, judge: place.refresh(judge, url="http://127.0.0.1:9"),
    "a document of a stranger": lambda place, judge: place.open(judge, place.server.sign(generation=1, role="root")),
    "no document": lambda place, judge: place.open(judge, b"{"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_called_the_same(tmp_path, wrong):
    said = []
    for kind in JUDGES:
        with SimulatedServer() as server:
            place = Place(server, tmp_path / kind.__name__)
            with pytest.raises(ShoalError) as caught:
                WRONG[wrong](place, kind(place.folder / "metadata"))
        said.append((type(caught.value), caught.value.message.replace(server.url, "URL"), caught.value.hint))
    assert said[0] == said[1]


@pytest.mark.parametrize("kind", JUDGES)
def test_what_the_disk_does_is_called_by_its_name(place, kind):
    (place.folder / "metadata").write_bytes(b"a file where a folder should be")
    with pytest.raises(FileExistsError):
        place.refresh(kind(place.folder / "metadata"))
