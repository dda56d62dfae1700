"""Summing what devices counted of broken rules, and judging it. Pure.

A rule is broken when more rows break it than it tolerates; of a single row in a fleet that is told too, since a
contract is a promise and no statistic. A device's counts are believed as they are: what it says of itself stands under
its name, and it can't hide what others say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.profile.codec import ProfileMessage
from shoal_protocol.profile.counting import rules_hash

MOST_DEVICES = 10
"""So many devices are named, those with the most broken rows first."""

MOST_APART = 5
"""So many broken rules of a bundle have an alert each; more are told together."""

_MOST_NAMED = 10


@dataclass(frozen=True)
class RuleState:
    """How often one rule was broken in a span of time.

    Attributes:
        rule: The rule.
        rows: Rows that were checked.
        violations: Rows that broke it.
        devices: Devices with the most such rows, and how many they have.
        source: Who set it: the ``bundle``, or the ``server``.
    """

    rule: Rule
    rows: int
    violations: int
    devices: tuple[tuple[str, int], ...]
    source: str = "bundle"

    @property
    def share(self) -> float:
        """Share of the rows that broke it."""
        return self.violations / self.rows if self.rows else 0.0

    @property
    def is_broken(self) -> bool:
        """Whether that is more than it tolerates."""
        return self.rule.is_broken(self.violations, self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return what programs see."""
        return {
            "rule": self.rule.words,
            "field": self.rule.field,
            "check": self.rule.check,
            "action": self.rule.action,
            "source": self.source,
            "tolerate": self.rule.tolerate,
            "rows": self.rows,
            "violations": self.violations,
            "share": float(f"{self.share:.6g}"),
            "broken": self.is_broken,
            "devices": [{"device": name, "violations": count} for name, count in self.devices],
        }


def rule_states(
    own: Sequence[Rule], windows: Iterable[tuple[str, ProfileMessage]], *, beside: tuple[Rule, ...] = ()
) -> list[RuleState]:
    """Sum windows of one bundle by rule.

    Args:
        own: The bundle's rules.
        windows: Device and message; one that counts another number of rules is left out.
        beside: Rules that are set at the server; windows that were counted by others before say nothing of them.
    """
    rules, wanted = (*own, *beside), rules_hash(beside)
    rows, broken = [0] * len(rules), [Counter[str]() for _ in rules]
    for device, message in windows:
        counted = len(rules) if beside and message.rules == wanted else len(own)
        if len(message.violations) < counted or (not message.rules and len(message.violations) != len(own)):
            continue
        for at, count in enumerate(message.violations[:counted]):
            rows[at] += message.n
            if count:
                broken[at][device] += count
    return [
        RuleState(
            rule,
            rows[at],
            broken[at].total(),
            tuple(sorted(broken[at].items(), key=_most_first)[:MOST_DEVICES]),
            source="bundle" if at < len(own) else "server",
        )
        for at, rule in enumerate(rules)
    ]


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0])


def alert_text(slot: str, state: RuleState) -> tuple[str, str]:
    """Return title and body of the alert about a broken rule."""
    allowed = f", tolerated are {100 * state.rule.tolerate:g} %" if state.rule.tolerate else ""
    title = f"{slot} gets values that break its contract: {state.rule.words} ({_percent(state.share)} of rows)"
    lines = [
        f"In the last hour {state.violations} of {state.rows} rows ({100 * state.share:.3g} %) broke it{allowed}.",
        "The rule is set at the server." if state.source == "server" else "The rule is the bundle's.",
        "Most from:",
        *(f"- {name}: {count}" for name, count in state.devices),
    ]
    return title, "\n".join(lines)


def alerts_of(
    slot: str, digest: str, rules: Sequence[RuleState], *, told: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Return title and body of what people should know about a bundle's broken rules, by the alerts' keys.

    A sensor that fails breaks one rule, a shift of the world nearly all: those are one cause, and one alert.

    Args:
        slot: In which it runs.
        digest: Of the bundle.
        rules: All of them.
        told: Keys of the alerts that are not resolved. Rules that were told together stay together until all are kept.
    """
    broken = {at: state for at, state in enumerate(rules) if state.is_broken}
    together = f"contract:{slot}:{digest}:together"
    if len(broken) > MOST_APART or (broken and together in told):
        return {together: _together(slot, list(broken.values()), of=len(rules))}
    return {f"contract:{slot}:{digest}:{at}": alert_text(slot, state) for at, state in broken.items()}


def _together(slot: str, broken: list[RuleState], *, of: int) -> tuple[str, str]:
    worst = sorted(broken, key=lambda state: -state.share)
    title = (
        f"{slot} gets values that break {len(broken)} of the {of} rules of its contract, most: "
        f"{worst[0].rule.words} ({_percent(worst[0].share)} of rows)"
    )
    devices = Counter[str]()
    for state in broken:
        devices.update(dict(state.devices))
    more = [f"- and {len(worst) - _MOST_NAMED} more: shoalctl contract show {slot}"] if len(worst) > _MOST_NAMED else []
    lines = [
        "In the last hour these rules were broken by more rows than they tolerate, the most broken first:",
        *(f"- {one.rule.words}: {one.violations:,} of {one.rows:,} rows" for one in worst[:_MOST_NAMED]),
        *more,
        "Values that broke one, most from:",
        *(f"- {name}: {count:,}" for name, count in sorted(devices.items(), key=_most_first)[:MOST_DEVICES]),
    ]
    return title, "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
