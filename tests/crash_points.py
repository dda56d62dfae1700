"""The kinds of points of the crash campaign: how an agent ends, or what fails under it, and where.

step          before one of the calls that make something durable, by SIGKILL or an emulated power cut; needs nothing
kill          SIGKILL as it enters a system call on files; needs strace
fail          a system call on files fails (disk full, disk failing, no descriptor left), once or from then on; strace
cut ext4|xfs  the power is cut right after a system call, on a file system of its own; strace, root, loop devices
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import loop_disks
import strace_points
from crash_stories import Device, Story
from killed_agent import Ended
from strace_points import ERRORS, Place

CUT_KINDS = {"cut ext4": "ext4", "cut xfs": "xfs"}
KINDS = ("step", "kill", "fail", *CUT_KINDS)
CONTROLS = {
    "late": ("step",),
    "unsynced": ("step", *CUT_KINDS),
    "unordered": tuple(CUT_KINDS),
}
"""Flawed agents, and the kinds of points that must catch each."""

FLAW_SHOWS = {"late": (), "unsynced": ("rename", "fsync", "close"), "unordered": ("rename",)}
"""The system calls at which a cut shows a flaw: a file that is synced late is empty between its rename and that."""

_SETTLES = 0.1
"""Share of the points after which the device goes on with its server until it has arrived."""


def missing(folder: Path) -> dict[str, str]:
    """Return the kinds of points that this machine can't offer, each with what is missing."""
    lacks = {}
    traced = strace_points.missing()
    if traced is not None:
        lacks = dict.fromkeys(("kill", "fail", *CUT_KINDS), traced)
    else:
        for kind, disk in CUT_KINDS.items():
            reason = loop_disks.missing(disk, folder)
            if reason is not None:
                lacks[kind] = reason
    return lacks


@dataclass(frozen=True)
class Map:
    """Where agents can be ended: by the number of a story and a place in it.

    Attributes:
        places: All system calls of all stories, in an order that a seed decides.
    """

    places: tuple[tuple[int, Place], ...] = ()

    @classmethod
    def of(cls, device: Device, *, seed: int) -> Map:
        """Count the system calls of every story."""
        found = []
        for number, story in enumerate(device.stories):
            for gate in ("boot", "threads"):
                state = device.begin(story)
                counted = strace_points.places(device.nursery, state, story.fate(), gate)
                found += [(number, place) for place in counted]
        random.Random(f"{seed}/places").shuffle(found)
        return cls(tuple(found))

    def only(self, syscalls: Collection[str]) -> Map:
        """Return the places at some system calls."""
        return Map(tuple((number, place) for number, place in self.places if place.syscall in syscalls))

    def at(self, turn: int) -> tuple[int, Place]:
        """Return a place; each comes once before one comes again."""
        return self.places[turn % len(self.places)]


@dataclass
class Lane:
    """One device on which points are played, one after the other.

    Attributes:
        device: The device.
        map: Where agents can be ended.
        disks: By kind of point.
        kinds: What this machine offers.
    """

    device: Device
    map: Map
    disks: Mapping[str, loop_disks.LoopDisk] = field(default_factory=dict)
    kinds: Sequence[str] = KINDS

    def point(self, index: int, seed: int) -> tuple[str, list[str]]:
        """Play a point of the campaign; return what it was and what is wrong."""
        kind = self.kinds[index % len(self.kinds)]
        return self.play(kind, index // len(self.kinds), random.Random(f"{seed}/{index}"))

    def play(self, kind: str, turn: int, lots: random.Random, *, flaw: str | None = None) -> tuple[str, list[str]]:
        """Play one point of a kind.

        Args:
            kind: One of `KINDS`.
            turn: The how many-th of its kind.
            lots: Decides what the turn does not.
            flaw: Of the agent.
        """
        if kind == "step":
            return self._step(lots, flaw)
        if kind == "kill":
            return self._killed(turn, lots)
        if kind == "fail":
            return self._failed(turn, lots)
        return self._cut(kind, turn, lots, flaw)

    def _step(self, lots: random.Random, flaw: str | None) -> tuple[str, list[str]]:
        story = lots.choice(self.device.stories)
        state = self.device.begin(story)
        told = [story.name]
        for _ in range(2 if story.cut_before else 1):
            step = lots.randint(1, story.steps)
            cut = lots.randrange(1 << 30) if flaw == "unsynced" or lots.random() < 0.5 else None
            ended = self.device.nursery.run(state, story.fate(steps=step, power_cut=cut, flaw=flaw))
            told.append(f"{'power cut' if cut is not None else 'SIGKILL'} at step {step}/{story.steps}")
            if ended.status not in {0, -9}:
                return ", ".join(told), [_ended_badly(ended)]
        return ", ".join(told), self._judge(story, state, lots, thorough=flaw is None)

    def _killed(self, turn: int, lots: random.Random) -> tuple[str, list[str]]:
        number, place = self.map.at(turn)
        story = self.device.stories[number]
        state = self._begin(story, lots)
        ended = strace_points.killed_at(self.device.nursery, state, story.fate(), place)
        told = f"{story.name}, killed at {place}"
        if ended.status not in {0, -9}:
            return told, [_ended_badly(ended)]
        return told, self._judge(story, state, lots)

    def _failed(self, turn: int, lots: random.Random) -> tuple[str, list[str]]:
        number, place = self.map.only(ERRORS).at(turn)
        story = self.device.stories[number]
        error, lasting = lots.choice(ERRORS[place.syscall]), lots.random() < 0.3
        state = self._begin(story, lots)
        # what fails for ever keeps the agent from arriving, which is no fault; what failed once must not
        fate = story.fate(patience_s=1.0 if lasting else 20.0)
        ended = strace_points.failing_at(self.device.nursery, state, fate, place, error=error, lasting=lasting)
        told = f"{story.name}, {error} {'from' if lasting else 'at'} {place}"
        allowed = {0, 1, 2} if lasting else {0, 1} if place.gate == "boot" else {0}
        if ended.status not in allowed:
            return told, [_ended_badly(ended)]
        return told, self._judge(story, state, lots, settles=1.0 if lasting else _SETTLES, could_save=not lasting)

    def _cut(self, kind: str, turn: int, lots: random.Random, flaw: str | None) -> tuple[str, list[str]]:
        number, place = self.map.at(turn)
        story, disk = self.device.stories[number], self.disks[kind]
        journal = lots.choice(sorted(loop_disks.JOURNALS)) if flaw is None else "journal flushed"
        disk.fresh()
        try:
            state = self._begin(story, lots, disk.root / "state")
            disk.sync()
            ended = strace_points.struck_at(
                self.device.nursery, state, story.fate(flaw=flaw), place, strike=partial(disk.cut, journal)
            )
            disk.recover()
            told = f"{story.name}, power cut on {disk.kind} ({journal}) after {place}"
            if ended.status not in {0, -9}:
                return told, [_ended_badly(ended)]
            return told, self._judge(story, state, lots, thorough=flaw is None)
        finally:
            disk.unmount()

    def _begin(self, story: Story, lots: random.Random, state: Path | None = None) -> Path:
        """Begin a story; one that is to be resumed was cut off once before."""
        state = self.device.begin(story, state)
        if story.cut_before:
            self.device.nursery.run(state, story.fate(steps=lots.randint(1, story.steps)))
        return state

    def _judge(
        self,
        story: Story,
        state: Path,
        lots: random.Random,
        *,
        thorough: bool = True,
        settles: float = _SETTLES,
        could_save: bool = True,
    ) -> list[str]:
        faults = list(self.device.faults(story, state, could_save=could_save))
        if thorough and not faults and lots.random() < settles:
            faults = list(self.device.unsettled(story, state))
        return faults


def caught(lane: Lane, flaw: str, kind: str, *, seed: int, points: int) -> str | None:
    """Return how a flawed agent was noticed; none: it was not."""
    lane = replace(lane, map=lane.map.only(FLAW_SHOWS[flaw]))
    for index in range(points):
        told, faults = lane.play(kind, index, random.Random(f"{seed}/{flaw}/{index}"), flaw=flaw)
        if faults:
            return f"point {index + 1} ({told}): {faults[0]}"
    return None


def controls(flaws: Collection[str], kinds: Collection[str]) -> Iterator[tuple[str, str]]:
    """Return every flaw with each kind of point that must catch it here."""
    for flaw in flaws:
        yield from ((flaw, kind) for kind in CONTROLS[flaw] if kind in kinds)


def _ended_badly(ended: Ended) -> str:
    return f"the agent ended with {ended.status}: {ended.told[-2000:]}"
