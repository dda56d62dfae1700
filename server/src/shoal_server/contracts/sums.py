"""Summing what devices counted of broken rules, and judging it. Pure.

A rule is broken when more rows break it than it tolerates; of a single row in a fleet that is told too, since a
contract is a promise and no statistic. A device's counts are believed as they are: what it says of itself stands under
its name, and it can't hide what others say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.profile.codec import ProfileMessage

MOST_DEVICES = 10
"""So many devices are named, those with the most broken rows first."""


@dataclass(frozen=True)
class RuleState:
    """How often one rule was broken in a span of time.

    Attributes:
        rule: The rule.
        rows: Rows that were checked.
        violations: Rows that broke it.
        devices: Devices with the most such rows, and how many they have.
    """

    rule: Rule
    rows: int
    violations: int
    devices: tuple[tuple[str, int], ...]

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
            "tolerate": self.rule.tolerate,
            "rows": self.rows,
            "violations": self.violations,
            "share": float(f"{self.share:.6g}"),
            "broken": self.is_broken,
            "devices": [{"device": name, "violations": count} for name, count in self.devices],
        }


def rule_states(rules: Sequence[Rule], windows: Iterable[tuple[str, ProfileMessage]]) -> list[RuleState]:
    """Sum windows of one bundle by rule.

    Args:
        rules: The bundle's.
        windows: Device and message; a message that counts another number of rules is left out.
    """
    rows, broken = 0, [Counter[str]() for _ in rules]
    for device, message in windows:
        if len(message.violations) != len(rules):
            continue
        rows += message.n
        for counter, count in zip(broken, message.violations, strict=True):
            if count:
                counter[device] += count
    return [
        RuleState(rule, rows, counter.total(), tuple(sorted(counter.items(), key=_most_first)[:MOST_DEVICES]))
        for rule, counter in zip(rules, broken, strict=True)
    ]


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0])


def alert_text(slot: str, state: RuleState) -> tuple[str, str]:
    """Return title and body of the alert about a broken rule."""
    allowed = f", tolerated are {100 * state.rule.tolerate:g} %" if state.rule.tolerate else ""
    title = f"{slot} gets values that break its contract: {state.rule.words}"
    lines = [
        f"In the last hour {state.violations} of {state.rows} rows ({100 * state.share:.3g} %) broke it{allowed}.",
        "Most from:",
        *(f"- {name}: {count}" for name, count in state.devices),
    ]
    return title, "\n".join(lines)
