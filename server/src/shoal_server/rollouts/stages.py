"""Which devices belong to which stage.

Owns the selection: stratified by hardware and site, deterministic by a hash, prefix-stable, so that the devices of 5 %
are among those of 25 %. Leaves to the store that it is recorded once and never computed again for a running rollout.

Invariants: the order of the input never matters, so neither a database's order nor a device's name puts one site first;
another salt gives other canaries.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from shoal_server.rollouts.plan import StagePlan


def stratum(facts: Mapping[str, str]) -> str:
    """Return which devices are alike for sampling: same hardware, same site."""
    return f"{facts.get('arch', '?')}/{facts.get('label.site', facts.get('site', '?'))}"


def position(device: str, salt: str) -> float:
    """Return the device's place in [0, 1), the same for ever for one salt."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{device}".encode()).digest()[:7]) / 2**56


def ordered(strata: Mapping[str, str], salt: str) -> list[str]:
    """Return all devices in the order in which stages take them.

    Within a stratum devices are ordered by hash; the strata are then interleaved by each device's fraction within its
    own, so that every prefix holds all strata in proportion, as far as whole devices allow.

    Args:
        strata: Stratum by device.
        salt: Of the rollout.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for device, group in strata.items():
        groups[group].append(device)
    placed: list[tuple[float, float, str]] = []
    for alike in groups.values():
        alike.sort(key=lambda device: (position(device, salt), device))
        # Places within a stratum are shifted by its first device's hash: else every small stratum would claim the
        # same fraction, and the smallest percentages would hold big strata only.
        shift = position(alike[0], salt + "/shift")
        placed.extend(
            ((rank + shift) / len(alike), position(device, salt), device) for rank, device in enumerate(alike)
        )
    return [device for _, _, device in sorted(placed)]


def sizes(plan: Sequence[StagePlan], members: int) -> list[int]:
    """Return how many devices have the bundle when each stage is done (cumulative).

    A share is rounded up, `at_least` is obeyed, and no stage has fewer than the one before or more than all.
    """
    result: list[int] = []
    for stage in plan:
        # A share such as 0.07 of 100 must not become 8 by the error of the float.
        wanted = max(math.ceil(round(stage.share * members, 9)), stage.at_least)
        result.append(min(members, max(wanted, result[-1] if result else 0)))
    return result


def select(plan: Sequence[StagePlan], strata: Mapping[str, str], salt: str) -> dict[str, int]:
    """Return the stage, from 0, of each device that the plan reaches."""
    order = ordered(strata, salt)
    result: dict[str, int] = {}
    begin = 0
    for stage, end in enumerate(sizes(plan, len(order))):
        result.update((device, stage) for device in order[begin:end])
        begin = end
    return result


def stage_of_newcomer(plan: Sequence[StagePlan], device: str, *, salt: str, current: int) -> int | None:
    """Return the stage that a device joins which entered the cohort meanwhile, None when the plan does not reach it.

    Args:
        plan: All stages.
        device: Who.
        salt: Of the rollout.
        current: The stage that is running; it and those before take nobody in, unless it is the last.
    """
    place = position(device, salt)
    own = next((number for number, stage in enumerate(plan) if place < stage.share), None)
    return None if own is None else min(max(own, current + 1), len(plan) - 1)
