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
from shoal_protocol.profile.counting import rules_hash

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
    rate = f"{100 * state.share:.2g} % of rows"
    title = f"{slot} gets values that break its contract: {state.rule.words} ({rate})"
    lines = [
        f"In the last hour {state.violations} of {state.rows} rows ({100 * state.share:.3g} %) broke it{allowed}.",
        "The rule is set at the server." if state.source == "server" else "The rule is the bundle's.",
        "Most from:",
        *(f"- {name}: {count}" for name, count in state.devices),
    ]
    return title, "\n".join(lines)
