"""When a document about what to count is fetched, how often, and when it is given up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import Slot, Target
from shoal_agent.errors import TransportError
from shoal_agent.runtime.errors import ModelLoadError
from shoal_agent.testing import FakeClock
from shoal_agent.updating.counting import AGAIN_S, Counting
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.profile.counting import MAX_BYTES, encode_counting
from shoal_protocol.profile.counting import Counting as Document

BUNDLE, OTHER = ("sha256:" + letter * 64 for letter in "ab")
GOOD = encode_counting(Document(BUNDLE))
NEWER = json.dumps({"format_version": 99, "bundle": BUNDLE}).encode()
OF_ANOTHER = encode_counting(Document(OTHER))
CAP_S = 300.0


@dataclass
class Model:
    """What counting sees of the model that answers."""

    digest: str = BUNDLE
    counted_by: str | None = None
    is_unlearnt: bool = False
    lacks_something: bool = False
    counting: None = None
    observer: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(spec=SimpleNamespace(streams=())))

    def counting_also(self, _document: Document | None, digest: str | None) -> Model:
        if self.lacks_something:
            raise ModelLoadError("stream 'x' names 'x', which the model lacks")
        return replace(self, counted_by=digest)


class Learner:
    """Has seen enough at once, unless the test says otherwise."""

    def __init__(self, device: Device, model: Model) -> None:
        self._device = device
        self._model = model

    @property
    def is_done(self) -> bool:
        return self._device.has_rows

    def is_of(self, model: Model) -> bool:
        return model is self._model

    def start(self) -> None:
        """Nothing to be done."""

    def stop(self) -> None:
        """Nothing to be done."""

    def sketches(self) -> dict[str, Any]:
        return {}


@dataclass
class Device:
    """A device whose wish, model and server the test dictates."""

    folder: Path
    model: Model = field(default_factory=Model)
    wish: str | None = None
    answer: tuple[int, bytes] | TransportError = (200, GOOD)
    fetched: list[tuple[str, int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    has_rows: bool = True
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.counting = Counting(
            self.folder / "counting",
            state=lambda: DeviceState(slots={"quality": Slot(target=Target(BUNDLE), counting=self.wish)}),
            slots=self,
            source=_Source(self),
            learner=lambda model: Learner(self, model),
            tell=lambda slot, digest, _data: self.told.append(f"{slot} {digest[:8]}"),
            clock=self.clock,
            monotonic=self.clock,
            backoff=Backoff(base_s=15.0, cap_s=CAP_S),
            chance=lambda: 1.0,
        )

    def serve(self, raw: bytes) -> None:
        self.answer, self.wish = (200, raw), sha256_digest(raw)

    def pass_by(self, seconds: int) -> bool:
        """Take a turn a second, as the thread does; return whether something is left to do."""
        left = True
        for _ in range(seconds):
            left = self.counting.turn()
            self.clock.move(1.0)
        return left

    def get(self, _slot: str) -> Model:
        return self.model

    def exchange(self, _slot: str, before: Model, after: Model) -> bool:
        assert before is self.model
        self.model = after
        return True


class _Source:
    def __init__(self, device: Device) -> None:
        self._device = device

    def exchange(self, method: str, path: str, *, limit: int, **_more: object) -> tuple[int, Mapping[str, str], bytes]:
        assert method == "GET"
        self._device.fetched.append((path.rpartition("/")[2], limit))
        if isinstance(self._device.answer, TransportError):
            raise self._device.answer
        return self._device.answer[0], {}, self._device.answer[1]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_a_document_is_fetched_once_as_large_as_documents_may_be_and_applied(device):
    device.serve(GOOD)
    assert device.pass_by(3) is False
    assert device.fetched == [(sha256_digest(GOOD), MAX_BYTES)]
    assert device.model.counted_by == device.wish


@pytest.mark.parametrize(
    ("raw", "lacks_something", "says"),
    [
        (NEWER, False, "format version 99"),
        (OF_ANOTHER, False, "of the bundle sha256:b"),
        (GOOD, True, "which the model lacks"),
        (b"[", False, "what to count"),
    ],
    ids=["newer", "of another bundle", "does not fit", "damaged"],
)
def test_a_document_that_can_not_be_used_is_fetched_once(raw, lacks_something, says, device):
    device.model.lacks_something = lacks_something
    device.serve(raw)
    assert device.pass_by(3600) is False, "no thread is needed for it"
    assert len(device.fetched) == 1
    assert says in device.counting.reports()["quality"]["fault"]


def test_another_wish_is_tried_at_once_after_a_hopeless_one(device):
    device.serve(NEWER)
    device.pass_by(10)
    device.serve(GOOD)
    device.pass_by(1)
    assert device.model.counted_by == device.wish
    device.serve(NEWER)
    device.pass_by(1)
    device.wish = None
    device.pass_by(1)
    assert (device.model.counted_by, len(device.fetched)) == (None, 3)


@pytest.mark.parametrize(
    "answer",
    [TransportError("no network"), (503, b""), (200, b"<html>Please sign in</html>")],
    ids=["no network", "server error", "other bytes"],
)
def test_what_may_come_right_is_tried_ever_more_seldom(answer, device):
    device.serve(GOOD)
    device.answer = answer
    assert device.pass_by(3600) is True
    assert 10 <= len(device.fetched) <= 20  # after 15, 30, 60, 120, 240 s, then every 300 s
    device.answer = (200, GOOD)
    device.pass_by(int(CAP_S))
    assert device.model.counted_by == device.wish


def test_another_wish_does_not_wait_for_the_failed_one(device):
    device.wish, device.answer = OTHER, (503, b"")
    device.pass_by(600)
    device.serve(GOOD)
    device.pass_by(1)
    assert device.model.counted_by == device.wish


def test_first_rows_are_told_whatever_became_of_the_document(device):
    device.model.is_unlearnt = True
    device.serve(NEWER)
    assert device.pass_by(60) is False
    assert (device.told, len(device.fetched)) == (["quality sha256:a"], 1)


def test_first_rows_are_told_again_after_a_day_if_nothing_came_of_them(device):
    device.model.is_unlearnt = True
    device.pass_by(60)
    device.clock.move(AGAIN_S / 2)
    device.pass_by(60)
    assert device.told == ["quality sha256:a"]
    device.clock.move(AGAIN_S / 2)
    device.pass_by(60)
    assert device.told == ["quality sha256:a"] * 2
    device.clock.move(AGAIN_S)
    device.model.is_unlearnt = False
    device.pass_by(60)
    assert device.told == ["quality sha256:a"] * 2


def test_a_model_that_is_swapped_while_it_is_learnt_is_looked_at_anew_when_it_returns(device):
    device.model.is_unlearnt, device.has_rows = True, False
    first = device.model
    device.pass_by(5)
    device.model = Model(digest=OTHER, is_unlearnt=True)
    device.pass_by(5)
    device.has_rows = True
    device.pass_by(5)
    device.model = first
    device.pass_by(5)
    assert device.told == ["quality sha256:b", "quality sha256:a"]
