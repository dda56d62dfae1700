"""What the transactions of a device work with: the parts around them, and times and chance.

Values only; `shoal_agent.bootstrap` fills them with the real parts, the tests with fakes.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.slot import Wait
from shoal_agent.domain.trial import TrialRules
from shoal_agent.ports import BlobStore, Clock, Spool, StateFile
from shoal_agent.updating.callouts import Callouts
from shoal_agent.updating.leave import Leave
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.model_host import ModelHost
from shoal_agent.updating.work import Work


class Surroundings(msgspec.Struct, frozen=True):
    """What a transaction works with.

    Attributes:
        state_file: Where the state is saved.
        store: Where the bundles are.
        host: Loads and installs models.
        work: The steps.
        spool: Takes outcomes.
        messages: Makes outcomes.
        leave: Says what must wait.
        callouts: Tells the integrator's programs.
    """

    state_file: StateFile
    store: BlobStore
    host: ModelHost
    work: Work
    spool: Spool
    messages: Messages
    leave: Leave
    callouts: Callouts


class Rhythm(msgspec.Struct, frozen=True):
    """Times and chance.

    Attributes:
        clock: Seconds UTC.
        monotonic: Seconds for durations.
        chance: Uniform draws from [0, 1).
        backoff: Bounds of the wait between tries.
        rules: Of trials.
        longest_call_s: After so long a call of a model that is not on trial is cut off, seconds; 0: never.
    """

    clock: Clock
    monotonic: Clock
    chance: Callable[[], float]
    backoff: Backoff
    rules: TrialRules
    longest_call_s: float = 0.0

    def delay_s(self, wait: Wait) -> float:
        """Return how long to wait: after a costly failure from a fifth of the usual longest wait to 72 times that.

        With the default of 300 s that is a minute at first, and six hours at most.
        """
        usual = self.backoff
        bounds = Backoff(base_s=usual.cap_s / 5, cap_s=usual.cap_s * 72) if wait.costly else usual
        return bounds.delay_s(wait.tries, self.chance())
