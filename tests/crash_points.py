"""The kinds of points of the crash campaign: how an agent ends, or what fails under it, and where.

step          before one of the calls that make something durable, by SIGKILL or an emulated power cut; needs nothing
kill          SIGKILL as it enters a system call, of whatever name; needs strace
fail          a system call on files fails (disk full, disk failing, no descriptor left), once or from then on; strace
full          the disk, a tmpfs, has room for so many pages or inodes only, until somebody makes room; needs root
cut ext4|xfs  the power is cut right after a call that changes the disk or tells the server something, on a file system
              of its own; strace, root, loop devices

The places take turns by story, gate and name of the call, so that the rare names get as many points as the common ones.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

import full_disks
import loop_disks
import strace_points
from crash_stories import Device, Story
from killed_agent import Ended
from strace_points import ERRORS, LASTING, Place

CUT_KINDS = {"cut ext4": "ext4", "cut xfs": "xfs"}
KINDS = ("step", "kill", "fail", "full", *CUT_KINDS)
TRACED = frozenset({"kill", "fail", *CUT_KINDS})
"""Those at system calls."""

CONTROLS = {
    "late": ("step",),
    "unsynced": ("step", *CUT_KINDS),
    "unordered": tuple(CUT_KINDS),
}
"""Flawed agents, and the kinds of points that must catch each."""

FLAW_SHOWS = {"late": (), "unsynced": ("rename", "fsync", "close"), "unordered": ("rename",)}
"""The system calls at which a cut shows a flaw: a file that is synced late is empty between its rename and that."""

ROOM = {"pages": range(64), "inodes": range(32)}
"""Of what so much is left on a disk that is nearly full: from nothing to more than a story needs."""

TRIES = 5
"""So many runs at most are made for a point: no two runs make exactly the same calls, and some settle before."""

AGAIN = 9_973
"""From a turn to the one that is played in its stead, far from those that other points take; a prime."""

_SETTLES = 0.1
"""Share of the points after which the device goes on with its server until it has arrived."""


def missing(folder: Path) -> dict[str, str]:
    """Return the kinds of points that this machine can't offer, each with what is missing."""
    lacks = {}
    traced = strace_points.missing()
    if traced is not None:
        lacks = dict.fromkeys(sorted(TRACED), traced)
    else:
        for kind, disk in CUT_KINDS.items():
            reason = loop_disks.missing(disk, folder)
            if reason is not None:
                lacks[kind] = reason
    no_full = full_disks.missing(folder)
    return lacks if no_full is None else lacks | {"full": no_full}


@dataclass(frozen=True)
class Map:
    """Where agents can be ended: by the number of a story and a place in it.

    Attributes:
        places: All system calls of all stories. Story, gate and name of the call take turns; a seed decides the rest.
    """

    places: tuple[tuple[int, Place], ...] = ()

    @classmethod
    def of(cls, device: Device, *, seed: int) -> Map:
        """Count the system calls of every story."""
        lots = random.Random(f"{seed}/places")
        groups: dict[tuple[int, str, str], list[tuple[int, Place]]] = defaultdict(list)
        for number, story in enumerate(device.stories):
            for gate in ("boot", "threads"):
                state = device.begin(story)
                for place in strace_points.places(device.nursery, state, story.fate(), gate):
                    groups[number, gate, place.syscall].append((number, place))
        for group in groups.values():
            lots.shuffle(group)
        rounds = zip_longest(*(groups[key] for key in lots.sample(sorted(groups), len(groups))))
        return cls(tuple(at for turn in rounds for at in turn if at is not None))

    def only(self, syscalls: Collection[str]) -> Map:
        """Return the places at some system calls."""
        return Map(tuple((number, place) for number, place in self.places if place.syscall in syscalls))

    def at(self, turn: int) -> tuple[int, Place]:
        """Return a place; each comes once before one comes again."""
        return self.places[turn % len(self.places)]


@dataclass(frozen=True)
class Played:
    """One point that was played.

    Attributes:
        story: Its name.
        how: What happened there: the name of a system call, or of a kind of end.
        told: All of it, to print.
        hit: Whether the agent came to the place; it may have settled before.
        faults: What is wrong with what is left.
    """

    story: str
    how: str
    told: str
    hit: bool
    faults: Sequence[str] = ()


@dataclass
class Lane:
    """One device on which points are played, one after the other.

    Attributes:
        device: The device.
        map: Where agents can be ended.
        disks: By kind of point.
        small: A disk that can be full.
        kinds: What this machine offers.
    """

    device: Device
    map: Map
    disks: Mapping[str, loop_disks.LoopDisk] = field(default_factory=dict)
    small: full_disks.FullDisk | None = None
    kinds: Sequence[str] = KINDS

    def point(self, index: int, seed: int) -> Iterator[Played]:
        """Play a point: until an agent came to its place, or was at fault, or `TRIES` of them settled before."""
        kind, turn = self.kinds[index % len(self.kinds)], index // len(self.kinds)
        for attempt in range(TRIES):
            played = self.play(kind, turn + attempt * AGAIN, random.Random(f"{seed}/{index}/{attempt}"))
            yield played
            if played.hit or played.faults:
                return

    def play(self, kind: str, turn: int, lots: random.Random, *, flaw: str | None = None) -> Played:
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
        if kind == "full":
            return self._full(turn, lots)
        return self._cut(kind, turn, lots, flaw)

    def _step(self, lots: random.Random, flaw: str | None) -> Played:
        story = lots.choice(self.device.stories)
        state = self.device.begin(story)
        told = [story.name]
        for _ in range(2 if story.cut_before else 1):
            step = lots.randint(1, story.steps)
            cut = lots.randrange(1 << 30) if flaw == "unsynced" or lots.random() < 0.5 else None
            ended = self.device.nursery.run(state, story.fate(steps=step, power_cut=cut, flaw=flaw))
            end = "power cut" if cut is not None else "SIGKILL"
            told.append(f"{end} at step {step}/{story.steps}")
            played = partial(Played, story.name, end, ", ".join(told), ended.status == -9)
            if ended.status not in {0, -9}:
                return played([_ended_badly(ended)])
        return played(self._judge(story, state, lots, thorough=flaw is None))

    def _killed(self, turn: int, lots: random.Random) -> Played:
        number, place = self.map.at(turn)
        story = self.device.stories[number]
        state = self._begin(story, lots)
        ended = strace_points.killed_at(self.device.nursery, state, story.fate(), place)
        played = partial(Played, story.name, place.syscall, f"{story.name}, killed at {place}", ended.status == -9)
        if ended.status not in {0, -9}:
            return played([_ended_badly(ended)])
        return played(self._judge(story, state, lots))

    def _failed(self, turn: int, lots: random.Random) -> Played:
        number, place = self.map.only(ERRORS).at(turn)
        story = self.device.stories[number]
        error, lasting = lots.choice(ERRORS[place.syscall]), lots.random() < 0.3
        state = self._begin(story, lots)
        # what fails for ever keeps the agent from arriving, which is no fault; what failed once must not
        fate = story.fate(patience_s=1.0 if lasting else 90.0)
        ended = strace_points.failing_at(self.device.nursery, state, fate, place, error=error, lasting=lasting)
        told = f"{story.name}, {error} {'from' if lasting else 'at'} {place}"
        played = partial(Played, story.name, f"{place.syscall} {error}", told, ended.hit)
        allowed = {0, 1, 2, 3} if lasting else {0, 1, 3} if place.gate == "boot" else {0}
        if ended.status not in allowed:
            return played([_ended_badly(ended)])
        return played(self._judge(story, state, lots, settles=1.0 if lasting else _SETTLES, could_save=not lasting))

    def _cut(self, kind: str, turn: int, lots: random.Random, flaw: str | None) -> Played:
        number, place = self.map.only(LASTING).at(turn)
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
            played = partial(Played, story.name, f"{place.syscall}, {journal}", told, ended.hit)
            if ended.status not in {0, -9}:
                return played([_ended_badly(ended)])
            return played(self._judge(story, state, lots, thorough=flaw is None))
        finally:
            disk.unmount()

    def _full(self, turn: int, lots: random.Random) -> Played:
        assert self.small is not None
        story = self.device.stories[turn % len(self.device.stories)]
        what, count = _room_of(turn // len(self.device.stories))
        self.small.fresh()
        try:
            state = self._begin(story, lots, self.small.root / "state")
            self.small.leave(what, count)
            ended = self.device.nursery.run(state, story.fate(patience_s=1.5))
            told = f"{story.name}, room for {count} {what}"
            played = partial(Played, story.name, what, told, ended.status != 0)
            if ended.status not in ({0, 2, 3} if story.path[0] is None else {0, 2}):
                return played([_ended_badly(ended)])
            faults = list(self.device.faults(story, state, could_save=False))
            self.small.make_room()
            # looked at again: this start ends in order, and is saved; else all the ends so far look like a crash loop
            faults = faults or list(self.device.faults(story, state, could_save=False))
            return played(faults or list(self.device.unsettled(story, state)))
        finally:
            self.small.unmount()

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


def _room_of(turn: int) -> tuple[str, int]:
    """Return what is left on the disk in a turn: everything that `ROOM` has comes once before it comes again."""
    every = [(what, count) for count in ROOM["pages"] for what in ROOM if count in ROOM[what]]
    return every[turn % len(every)]


def caught(lane: Lane, flaw: str, kind: str, *, seed: int, points: int) -> str | None:
    """Return how a flawed agent was noticed; none: it was not."""
    lane = replace(lane, map=lane.map.only(FLAW_SHOWS[flaw]))
    for index in range(points):
        played = lane.play(kind, index, random.Random(f"{seed}/{flaw}/{index}"), flaw=flaw)
        if played.faults:
            return f"point {index + 1} ({played.told}): {played.faults[0]}"
    return None


def controls(flaws: Collection[str], kinds: Collection[str]) -> Iterator[tuple[str, str]]:
    """Return every flaw with each kind of point that must catch it here."""
    for flaw in flaws:
        yield from ((flaw, kind) for kind in CONTROLS[flaw] if kind in kinds)


def _ended_badly(ended: Ended) -> str:
    return f"the agent ended with {ended.status}: {ended.told[-2000:]}"
