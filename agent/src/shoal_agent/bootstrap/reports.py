"""The parts that tell the server: links, windows, samples, and what is counted beyond the bundle."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_agent.adapters.http_link import FallbackLink, HttpLink
from shoal_agent.adapters.identity import Identity
from shoal_agent.adapters.mqtt_dialect import Dialect
from shoal_agent.adapters.mqtt_link import MqttLink
from shoal_agent.adapters.rotation import Rotation
from shoal_agent.domain.backoff import Backoff
from shoal_agent.domain.fit import DeviceFacts
from shoal_agent.machine import installed_version
from shoal_agent.ports import Link
from shoal_agent.settings import Settings
from shoal_agent.updating.counting import AGAIN_S, SEEN_EVENT, Counting
from shoal_agent.updating.sampling import Sampling, SamplingClocks
from shoal_agent.updating.transaction import Transactions
from shoal_agent.updating.uplink import Situation, Uplink
from shoal_agent.updating.window_spool import WindowSpool
from shoal_protocol.mqtt.topics import Up

if TYPE_CHECKING:
    from shoal_agent.runtime.learner import Learner
    from shoal_agent.runtime.model import LoadedModel
    from shoal_agent.runtime.sampler import Sampler
from shoal_agent.bootstrap.base import Base, new_client

_COUNTING_RETRY_S = 15.0
_LEARNING_WINDOWS = 3
"""For so many windows the first rows of a model without data are looked at, unless a setting says for how long."""


def make_uplink(base: Base, transactions: Transactions, sink: WindowSpool, *, beat: Callable[[], None]) -> Uplink:
    """Make what carries messages to the server and counts windows."""
    from shoal_agent.runtime.windows import Clocks, WindowClock  # noqa: PLC0415 - numpy comes with it

    overrides = base.overrides
    clocks = Clocks(wall=overrides.clock, monotonic=overrides.monotonic)
    situation = Situation(
        facts=lambda: birth_facts(
            base.identity,
            base.facts,
            base.settings,
            slots=tuple(transactions.state.slots),
            targets_version=base.trust.targets_version(),
        ),
        state=lambda: transactions.state,
        progress=transactions.progress,
        variants=transactions.variants,
        shadows=transactions.shadows,
        revoked=lambda: transactions.revoked,
        troubles=lambda: transactions.troubles,
        hold=lambda: transactions.hold,
    )
    return Uplink(
        overrides.link(base.identity) if overrides.link else _link(base),
        spool=base.spool,
        messages=base.messages,
        situation=situation,
        windows=WindowClock(
            base.slots,
            sink,
            window_s=base.settings.window_s,
            clocks=clocks,
            labels_wait=lambda: base.labels.waiting > 0,
        ),
        monotonic=overrides.monotonic,
        resend_s=base.settings.resend_s,
        beat=beat,
    )


def make_sampling(base: Base, transactions: Transactions) -> Sampling:
    """Make what sends raw rows under a permission."""
    overrides, trust = base.overrides, base.trust

    def sample(model: LoadedModel, share: float) -> Sampler:
        from shoal_agent.runtime.sampler import Budget, Sampler  # noqa: PLC0415 - few devices sample

        return Sampler(model, share=share, clock=overrides.clock, budget=Budget())

    clocks = SamplingClocks(trust.now_ms, overrides.monotonic, base.settings.window_s)
    sender = new_client(base)
    return Sampling(
        state=lambda: transactions.state, active=base.slots.get, sample=sample, sender=sender, clocks=clocks
    )


def make_rotation(base: Base) -> Rotation:
    """Make what replaces the device's credentials."""
    backoff = Backoff(base_s=1.0, cap_s=base.settings.reconnect_max_s)
    return Rotation(base.credentials, new_client(base), backoff=backoff, chance=base.overrides.chance)


def make_counting(base: Base, transactions: Transactions) -> Counting:
    """Make what counts beyond the bundle, as the assignment says."""
    overrides, spool, messages = base.overrides, base.spool, base.messages

    def learner(model: LoadedModel) -> Learner:
        from shoal_agent.runtime.learner import Learner  # noqa: PLC0415 - few bundles come without data

        seconds = base.settings.learning_s or _LEARNING_WINDOWS * base.settings.window_s
        return Learner(model, seconds=seconds, monotonic=overrides.monotonic)

    def tell(slot: str, digest: str, data: Mapping[str, Any]) -> None:
        event = messages.event(SEEN_EVENT, slot=slot, digest=digest, data=data)
        day = int(overrides.clock() // AGAIN_S)  # once in a day, also where a stop comes right after
        spool.append(Up.EVENT, event, key=f"{SEEN_EVENT}/{slot}/{digest}/{day}")
        base.relay.call("stored")

    return Counting(
        base.state / "counting",
        state=lambda: transactions.state,
        slots=base.slots,
        source=new_client(base),
        learner=learner,
        tell=tell,
        clock=overrides.clock,
        monotonic=overrides.monotonic,
        backoff=Backoff(base_s=min(_COUNTING_RETRY_S, base.settings.retry_max_s), cap_s=base.settings.retry_max_s),
        chance=overrides.chance,
    )


def birth_facts(
    identity: Identity, facts: DeviceFacts, settings: Settings, *, slots: tuple[str, ...], targets_version: int
) -> dict[str, Any]:
    """Return the fields of the birth message."""
    return {
        "agent_version": installed_version("shoal-agent"),
        "arch": facts.platform.partition("/")[2],
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": facts.onnxruntime,
        "cpu_count": os.cpu_count() or 0,
        "memory_bytes": facts.memory_bytes,
        "providers": facts.providers,
        "labels": identity.labels,
        "slots": slots,
        "window_s": settings.window_s,
        "targets_version": targets_version,
    }


def _link(base: Base) -> Link:
    identity, chance = base.identity, base.overrides.chance
    backoff = Backoff(base_s=0.5, cap_s=base.settings.reconnect_max_s)
    polling = new_client(base)
    poll_s = base.settings.poll_s or identity.poll_s
    if identity.mqtt_url is None:
        return HttpLink(
            polling, poll_s=poll_s, first_s=min(poll_s, 1.0), wanted=lambda: True, backoff=backoff, chance=chance
        )
    mqtt = MqttLink(
        identity.mqtt_url,
        device=identity.device,
        secret=base.credentials.broker_secret,
        ca_file=Path(base.settings.tls_broker_ca) if base.settings.tls_broker_ca else base.ca_file,
        certificate_time=base.certificate_time,
        client=base.settings.client_certificate,
        dialect=Dialect(
            base.state / "broker.json",
            broker=identity.mqtt_url,
            agent=installed_version("shoal-agent"),
            clock=base.overrides.clock,
        ),
        keepalive_s=base.settings.keepalive_s,
        backoff=backoff,
        chance=chance,
    )
    by_http = HttpLink(
        polling,
        poll_s=poll_s,
        first_s=10.0,
        wanted=lambda: not mqtt.connected or mqtt.is_too_narrow,
        backoff=backoff,
        chance=chance,
    )
    return FallbackLink(mqtt, by_http)
