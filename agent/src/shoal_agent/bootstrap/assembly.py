"""The parts of one agent, each named once and connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_agent.adapters.credentials import Credentials
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.identity import Identity
from shoal_agent.adapters.rotation import Rotation
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.ports import LabelBook, Spool
from shoal_agent.settings import Settings
from shoal_agent.status import live_status, save_snapshot
from shoal_agent.updating.counting import Counting
from shoal_agent.updating.desk import Desk
from shoal_agent.updating.model_host import engines
from shoal_agent.updating.pulse import Pulse
from shoal_agent.updating.sampling import Sampling
from shoal_agent.updating.transaction import Transactions
from shoal_agent.updating.updater import Inbox, Updater
from shoal_agent.updating.uplink import Uplink
from shoal_agent.updating.window_spool import WindowSpool

if TYPE_CHECKING:
    from shoal_agent.runtime.feedback import Feedback
    from shoal_agent.runtime.slots import SlotTable
from shoal_agent.bootstrap.base import Overrides, make_base
from shoal_agent.bootstrap.reports import make_counting, make_rotation, make_sampling, make_uplink
from shoal_agent.bootstrap.updates import make_hooks, make_transactions, make_updater

_UPDATING_PATIENCE_S = 1800.0
"""Loading a large model on a small device beats no pulse meanwhile."""

_TELLING_PATIENCE_S = 300.0


class Assembly(msgspec.Struct, frozen=True):
    """The parts of one agent, connected but not started."""

    identity: Identity
    slots: SlotTable
    spool: Spool
    labels: LabelBook
    feedback: Feedback
    windows: WindowSpool
    trust: TrustStore
    http: HttpClient
    inbox: Inbox
    transactions: Transactions
    updater: Updater
    uplink: Uplink
    sampling: Sampling
    rotation: Rotation
    credentials: Credentials
    counting: Counting
    engines: Callable[[], Mapping[str, Any]]
    pulses: tuple[Pulse, ...] = ()


# Long because it names every part once, line by line.
def assemble(state: Path, settings: Settings, overrides: Overrides) -> Assembly:
    """Connect the parts of an agent whose device has joined.

    Args:
        state: The state folder.
        settings: Of the agent.
        overrides: Replacements.

    Raises:
        NotEnrolledError: The folder belongs to no device yet.
        LocalError: The folder can't be used.
    """
    base = make_base(state, settings, overrides)
    desk = Desk(
        state / "requests",
        show=partial(base.relay.call, "show"),
        monotonic=overrides.monotonic,
        clock=overrides.clock,
    )
    updating = Pulse("updating", patience_s=_UPDATING_PATIENCE_S, monotonic=overrides.monotonic)
    telling = Pulse("telling the server", patience_s=_TELLING_PATIENCE_S, monotonic=overrides.monotonic)

    def cancelled() -> bool:  # asked between all parts of long steps, so it is a sign of life too
        updating.beat()
        return base.inbox.has_news() or desk.has_requests()

    hooks = make_hooks(settings, beat=updating.beat)
    transactions = make_transactions(base, hooks=hooks, cancelled=cancelled)
    windows = WindowSpool(base.spool, base.messages, stored=partial(base.relay.call, "stored"), labels=base.labels)
    uplink = make_uplink(base, transactions, windows, beat=telling.beat)
    rotation = make_rotation(base)
    updater = make_updater(base, transactions, uplink, desk=desk, beat=updating.beat, rotate=rotation.wish)
    assembly = Assembly(
        identity=base.identity,
        slots=base.slots,
        spool=base.spool,
        labels=base.labels,
        feedback=base.feedback,
        windows=windows,
        trust=base.trust,
        http=base.http,
        inbox=base.inbox,
        transactions=transactions,
        updater=updater,
        uplink=uplink,
        sampling=make_sampling(base, transactions),
        rotation=rotation,
        credentials=base.credentials,
        counting=make_counting(base, transactions),
        engines=partial(engines, base.slots),
        pulses=(updating, telling),
    )
    base.relay.connect(
        changed=partial(_each, uplink.changed, assembly.sampling.look, assembly.counting.look),
        stored=partial(_each, uplink.nudge, assembly.counting.look),  # first rows are told again after a day
        show=lambda: save_snapshot(state, live_status(assembly, settings)),
    )
    return assembly


def _each(*calls: Callable[[], None]) -> None:
    for call in calls:
        call()
