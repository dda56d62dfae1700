"""What is known about one slot, what can happen to it, and what is to be done: values only.

The transitions between the states stand in one table in `shoal_agent.domain.slot_machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from shoal_agent.domain.trial import Trial

MEMORY_SHORT = "memory_short"
"""Code of a wait for memory that this machine hasn't got now and may have later."""


class SlotState(StrEnum):
    """Where a slot is in an update."""

    IDLE = "idle"  # nothing under way: the active model answers, or there is none
    ASSIGNED = "assigned"  # a target is wanted; trust and fit are being checked
    DOWNLOADING = "downloading"  # allowed and fitting; its missing files are being fetched
    VERIFIED = "verified"  # all its files are stored and match the signed manifest
    PREFLIGHT = "preflight"  # its golden rows run in a child process
    ACTIVATING = "activating"  # it is being loaded beside the active model
    TRIAL = "trial"  # it answers, on probation
    COMMITTED = "committed"  # the trial passed; the outcome is being recorded
    REJECTED = "rejected"  # it failed before it ever answered; the outcome is being recorded
    ROLLING_BACK = "rolling_back"  # the active pointer is back at the previous bundle, which is being loaded
    ROLLED_BACK = "rolled_back"  # the previous model answers again; the outcome is being recorded


class Target(msgspec.Struct, frozen=True):
    """What the assignment wants in the slot; without a digest: nothing."""

    digest: str | None
    name: str = ""
    """``model:version``, for display only."""
    attempt: int = 0
    windows: tuple[str, ...] = ()
    """When it may be activated, by the word of the rollout; none: at any time."""


class ShadowWish(msgspec.Struct, frozen=True):
    """A bundle that should see the slot's inputs and answer nobody.

    Attributes:
        digest: Of the bundle.
        attempt: Of the assignment; a failed shadow is tried again when it grows.
        starts: Starts of the agent with it that did not end in order, nor lasted: it may be what ended them.
    """

    digest: str
    attempt: int = 0
    starts: int = 0


class SamplingWish(msgspec.Struct, frozen=True):
    """Permission to send raw rows of one slot.

    Attributes:
        share: Of the rows, above 0, up to 1.
        until_ms: Milliseconds since the epoch, by the device's reference time.
    """

    share: float
    until_ms: int


class SlotFault(msgspec.Struct, frozen=True):
    """Why a bundle failed here; final for `digest` until the attempt exceeds `attempt`."""

    code: str
    message: str
    digest: str
    attempt: int = 0


class Slot(msgspec.Struct, frozen=True):
    """All that is remembered about one slot; saved as a whole.

    Attributes:
        state: Where it is.
        since: When it came there, seconds UTC by the device's clock.
        active: Digest that answers.
        previous: Digest that passed its trial before `active` came.
        fallback: First digest that ever passed its trial here: the last resort.
        proven: Digest that passed its trial here, the last to do so or to be gone back to.
        trial: Probation of `active`; none: it has passed.
        target: What is wanted now.
        pending: A newer target that waits for the end of this transaction.
        failing: Digest that a roll-back is about.
        tries: Failures of the present step for which the transport or this machine is to blame.
        interruptions: How often a restart cut off the self-test or activation of the target.
        bad: Faults by digest, the newest last.
        shadow: What should run beside `active`; no transition depends on it.
        sampling: Permission to send raw rows; no transition depends on it either.
        counting: Digest of what is counted beyond what `target` says; nor on this.
    """

    state: SlotState = SlotState.IDLE
    since: float = 0.0
    active: str | None = None
    previous: str | None = None
    fallback: str | None = None
    proven: str | None = None
    trial: Trial | None = None
    target: Target | None = None
    pending: Target | None = None
    failing: str | None = None
    tries: int = 0
    interruptions: int = 0
    bad: Mapping[str, SlotFault] = msgspec.field(default_factory=dict)
    shadow: ShadowWish | None = None
    sampling: SamplingWish | None = None
    counting: str | None = None

    @property
    def fault(self) -> SlotFault | None:
        """Why the wanted target does not run, if it failed here."""
        return self.bad.get(self.target.digest or "") if self.target else None

    def keeps(self) -> frozenset[str]:
        """Return the digests that garbage collection must not touch."""
        wanted = [t.digest for t in (self.target, self.pending) if t is not None and t.digest not in self.bad]
        shadow = self.shadow.digest if self.shadow is not None else None
        return frozenset(d for d in (*wanted, self.active, self.previous, self.fallback, shadow) if d is not None)


# Events ---------------------------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True):
    """A verified assignment names a target."""

    target: Target


class Cleared(msgspec.Struct, frozen=True):
    """The target is in the signed list, not denied, and fits this device."""


class Fetched(msgspec.Struct, frozen=True):
    """All files of the target are stored and verified."""


class Begun(msgspec.Struct, frozen=True):
    """The self-test is about to start."""


class Passed(msgspec.Struct, frozen=True):
    """The self-test passed."""


class Loaded(msgspec.Struct, frozen=True):
    """The target is in memory, ready to answer. This is the switch point."""

    starts: int
    """Starts that the trial allows."""


class Refused(msgspec.Struct, frozen=True):
    """The target can't run here: a final fault before it ever answered."""

    code: str
    message: str


class Postponed(msgspec.Struct, frozen=True):
    """The transport or this machine failed for now; the same step is tried again later."""

    code: str = ""
    message: str = ""
    costly: bool = False
    """Whether a try costs much and seldom helps: a download that came out wrong, a self-test without memory for it."""


class Deferred(msgspec.Struct, frozen=True):
    """Somebody or something at the device says "not now": nothing failed, and the step is asked for again later."""

    code: str
    message: str
    after_s: float


class Due(msgspec.Struct, frozen=True):
    """The wait after a `Postponed` or `Deferred` is over."""


class Measured(msgspec.Struct, frozen=True):
    """More was seen of the model on trial."""

    trial: Trial


class Proved(msgspec.Struct, frozen=True):
    """The trial passed."""


class Failed(msgspec.Struct, frozen=True):
    """The active model failed: in its trial, at loading, or by an operator's word at the device."""

    code: str
    message: str


class Installed(msgspec.Struct, frozen=True):
    """The model that the slot went back to answers, or the slot is empty."""


class Recorded(msgspec.Struct, frozen=True):
    """The outcome is in the spool."""


class Booted(msgspec.Struct, frozen=True):
    """The agent starts and is about to load the active model."""


class Stopped(msgspec.Struct, frozen=True):
    """The agent stops in order, so this start says nothing against the model."""


class Damaged(msgspec.Struct, frozen=True):
    """The stored files of a bundle are missing or no longer match its manifest."""

    digest: str


class Barred(msgspec.Struct, frozen=True):
    """The signed list no longer allows these bundles: none of them is gone back to; the active one runs on."""

    digests: frozenset[str]


SlotEvent: TypeAlias = (
    Wanted | Cleared | Fetched | Begun | Passed | Loaded | Refused | Postponed | Deferred | Due | Measured
    | Proved | Failed | Installed | Recorded | Booted | Stopped | Damaged | Barred
)  # fmt: skip


# Effects --------------------------------------------------------------------------------------------------------


class Check(msgspec.Struct, frozen=True):
    """Check trust and fit of the target."""

    target: Target


class Fetch(msgspec.Struct, frozen=True):
    """Fetch the missing files of the target."""

    target: Target


class Prepare(msgspec.Struct, frozen=True):
    """Ask for leave to test and activate, then say `Begun`."""


class SelfTest(msgspec.Struct, frozen=True):
    """Run the golden rows in a child process."""

    digest: str


class Load(msgspec.Struct, frozen=True):
    """Load the model beside the active one."""

    digest: str


class Install(msgspec.Struct, frozen=True):
    """Let this bundle answer from now on; none: nobody."""

    digest: str | None


class Record(msgspec.Struct, frozen=True):
    """Put an outcome into the spool, once for each time that the slot came to its state."""

    kind: str
    digest: str
    attempt: int
    fault: SlotFault | None = None


class Wait(msgspec.Struct, frozen=True):
    """Say `Due` after a backoff."""

    tries: int
    costly: bool = False
    """Whether to wait much longer than after a transfer that broke off."""


class Pause(msgspec.Struct, frozen=True):
    """Say `Due` after so many seconds."""

    seconds: float


SlotEffect: TypeAlias = Check | Fetch | Prepare | SelfTest | Load | Install | Record | Wait | Pause
