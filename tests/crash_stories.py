"""What happens to a device in the crash campaign, and what must be true of what an end at any point leaves.

Without any network: the state on the disk is intact; the old or the new model is active and answers as itself, never
none; the device has not gone back behind what it told the server; no number was given to two messages.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent_bundles import bundle_files
from agent_nursery import Nursery
from killed_agent import Ended, Fate
from shoal_agent.adapters.enrolment import join
from shoal_agent.adapters.state_file import decode_state
from shoal_agent.domain.slot import Slot
from shoal_agent.testing import SimulatedServer
from shoal_protocol.mqtt.topics import Up

CLOSE = 1e-3
"""Relative difference up to which an answer is a model's; a device may run another form of it."""


@dataclass(frozen=True)
class Release:
    """One bundle that the device is to run.

    Attributes:
        version: As it is signed.
        files: Path inside the bundle -> content.
        answer: The first number of the last output that its model says to the device's question.
    """

    version: str
    files: Mapping[str, bytes]
    answer: float


def weights() -> tuple[Release, Release]:
    """Two models of one weight each, which is their answer; the rest of their bundles is much alike."""
    of = {"1.0": 3.0, "1.1": 5.0}
    old, new = (Release(v, bundle_files(w, version=v, padding=5_000), w) for v, w in of.items())
    return old, new


def packed(paths: Sequence[Path], folder: Path) -> tuple[tuple[Release, Release], str]:
    """Read two bundles that the converter packed, and ask both the golden rows of the first.

    Args:
        paths: The old and the new bundle.
        folder: Where the question is kept.

    Returns:
        Both, and the path of the question.
    """
    from shoal_converter import Bundle
    from shoal_converter.self_test import golden

    bundles = [Bundle.open(path) for path in paths]
    rows, _ = golden(bundles[0])
    question = folder / "question.npz"
    np.savez(question, **rows)
    old, new = (Release(version, b.files, _said(b, rows)) for version, b in zip(("1.0", "1.1"), bundles, strict=True))
    if math.isclose(old.answer, new.answer, rel_tol=10 * CLOSE):
        raise SystemExit(f"both models say {old.answer} to the golden rows of the first: take two that differ")
    return (old, new), str(question)


def _said(bundle: Any, rows: Mapping[str, np.ndarray]) -> float:
    """Ask a bundle's model without any agent."""
    import onnxruntime

    session = onnxruntime.InferenceSession(bundle.files["model/model.onnx"], providers=["CPUExecutionProvider"])
    return float(session.run(None, dict(rows))[-1].flat[0])


@dataclass(frozen=True)
class Story:
    """What happens to the device.

    Attributes:
        name: As it is printed.
        start: Folder that is copied as the beginning.
        document: What the server wants.
        path: Active bundles in the order in which they may follow each other.
        roll_back: Whether an operator at the device starts it.
        cut_before: Whether the agent is cut off twice.
        steps: Durable steps when nothing goes wrong.
    """

    name: str
    start: Path
    document: bytes
    path: tuple[str | None, ...]
    roll_back: bool = False
    cut_before: bool = False
    steps: int = 0

    def fate(self, **fields: Any) -> Fate:
        """Return what its agent is to do."""
        return Fate(str(self.path[-1]), roll_back=self.roll_back, **fields)


@dataclass
class Device:
    """One device, its simulated server and the nursery of its agents.

    Attributes:
        server: Told by the device.
        nursery: Where its agents come from.
        folder: For everything.
        releases: The old and the new bundle.
        question: An npz file with the inputs that `Release.answer` answers; none: ones, for ``x``.
        answers: What the model of each bundle says to that.
        stories: What can happen to it.
    """

    server: SimulatedServer
    nursery: Nursery
    folder: Path
    releases: tuple[Release, Release] = field(default_factory=weights)
    question: str = ""
    answers: dict[str | None, float] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The device's state folder on the usual disk."""
        return self.folder / "state"

    def prepare(self) -> None:
        """Make the beginnings of the stories, and count their steps."""
        join(self.server.url, self.server.join_token, self.state, name="dev-1", labels={}, facts={}, clock=time.time)
        joined = self._keep("joined")
        old, first = self._release(self.releases[0])
        self._settle(old)
        settled = self._keep("settled")
        new, second = self._release(self.releases[1])
        self._settle(new)
        updated = self._keep("updated")
        drafts = [
            Story("install", joined, first, (None, old)),
            Story("upgrade", settled, second, (old, new)),
            Story("rollback", updated, second, (new, old), roll_back=True),
            Story("resume", settled, second, (old, new), cut_before=True),
        ]
        for draft in drafts:
            self.begin(draft)
            ended = self.nursery.run(self.state, draft.fate())
            if ended.status != 0 or not ended.steps:
                raise SystemExit(f"{draft.name} does not even work undisturbed: {ended.told}")
            self.stories.append(replace(draft, steps=ended.steps))

    def begin(self, story: Story, state: Path | None = None) -> Path:
        """Put the device at the beginning of a story; return its state folder."""
        state = state or self.state
        for path in (state, state.with_name(state.name + ".cut")):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(story.start, state, symlinks=True)
        self.server.desired = story.document
        self.server.forget_messages()
        return state

    def faults(self, story: Story, state: Path, *, could_save: bool = True) -> Iterator[str]:
        """Look at what is left; nobody helps.

        Args:
            story: What happened.
            state: The device's state folder.
            could_save: Whether the disk took what was written. Where it never did again, the device still tells what
                really runs, which a restart then forgets.
        """
        path = state / "state.json"
        try:
            saved = decode_state(path.read_bytes()) if path.exists() else None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is the finding
            yield f"state.json is not intact: {error}"
            saved = None
        slot = saved.slots.get("quality", Slot()) if saved else Slot()
        if slot.active not in story.path:
            yield f"{slot.active} is active on the disk, which is neither the old nor the new bundle"
            return
        if could_save:
            yield from self._forgotten(story, slot)
        yield from self._doubles()
        # on a disk that takes nothing a start on trial can't be counted, so that the proven model answers instead
        yield from self._silent(state, {slot.active} if could_save else {slot.active, *story.path}, slot.active)

    def unsettled(self, story: Story, state: Path) -> Iterator[str]:
        """Let the device go on with its server."""
        ended = self.nursery.run(state, Fate(str(story.path[-1]), roll_back=story.roll_back))
        if ended.status != 0:
            yield f"the device never arrived: {ended.told[-1500:]}"
            return
        seen = self._look(state).seen
        if not self._is_answer_of(story.path[-1], seen.get("answer")):
            yield f"it arrived, but another model answers: {seen}"

    def _forgotten(self, story: Story, slot: Slot) -> Iterator[str]:
        """What the server was told must still be so."""
        for report in self.server.of(Up.REPORTED):
            said = report.slots.get("quality")
            for what in ("active", "proven") if said is not None else ():
                kept, told = getattr(slot, what), getattr(said, what)
                if _is_behind(story, kept, told):
                    yield f"the server was told that {told} is {what}; the disk says {kept}"
        for event in self.server.of(Up.EVENT):
            if event.kind == "committed" and _is_behind(story, slot.proven, event.digest):
                yield f"the server was told that {event.digest} is committed; the disk says {slot.proven}"

    def _doubles(self) -> Iterator[str]:
        seen: dict[tuple[str, int], Any] = {}
        for kind in (Up.EVENT, Up.PROFILE):
            for message in self.server.of(kind):
                if seen.setdefault((message.epoch, message.seq), message) != message:
                    yield f"number {message.seq} was given to two messages"

    def _silent(self, state: Path, allowed: set[str | None], active: str | None) -> Iterator[str]:
        """Start the device without a network, and see what answers.

        Args:
            state: Its folder.
            allowed: What may.
            active: What is on the disk.
        """
        ended = self._look(state)
        seen = ended.seen
        if ended.status == 3 and active is None and None in allowed:
            return  # there never was a model, and is no room for a first start
        if ended.status != 0 or not seen:
            yield f"after a start nothing answers: {ended.told[-1500:]}"
        elif seen["active"] not in allowed or (seen["active"] is None and active is not None):
            yield f"{active} is active on the disk, after a start it is {seen['active']}"
        elif not self._is_answer_of(seen["active"], seen["answer"]):
            yield f"{seen['active']} is active and answers {seen['answer']}"

    def _is_answer_of(self, digest: str | None, said: float | None) -> bool:
        expected = self.answers.get(digest)
        return said == expected or (None not in {said, expected} and math.isclose(said, expected, rel_tol=CLOSE))

    def _look(self, state: Path) -> Ended:
        return self.nursery.run(state, Fate("", look=True, question=self.question))

    def _release(self, release: Release) -> tuple[str, bytes]:
        digest = self.server.add_bundle(release.files)
        self.answers[digest] = release.answer
        return digest, self.server.assign("quality", self.server.release(digest, "quality", release.version))

    def _settle(self, wanted: str) -> None:
        ended = self.nursery.run(self.state, Fate(wanted))
        if ended.status != 0:
            raise SystemExit(f"{wanted} can't even be installed: {ended.told}")

    def _keep(self, name: str) -> Path:
        shutil.copytree(self.state, self.folder / name, symlinks=True)
        return self.folder / name


def _is_behind(story: Story, kept: str | None, told: str | None) -> bool:
    return told in story.path and (kept not in story.path or story.path.index(kept) < story.path.index(told))
