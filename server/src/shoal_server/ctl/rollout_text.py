"""A rollout as lines of text: where it stands, what changed between two looks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal_protocol.junit import Case, Outcome
from shoal_server.ctl.output import ago, coloured, percent, plain, table_lines

_SHARES = frozenset({"install", "lost", "errors"})
_COUNTS_DEVICES = frozenset({"install", "lost"})
_FAULTS = 3


def status_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a rollout with its stages and gates."""
    state = plain(found["state"])
    lines = [
        f"{plain(found['name'])}  {coloured(state, state)}  {plain(found['bundle'])} -> slot {plain(found['slot'])}",
        f"  {plain(found['reason'])}" if found["reason"] else "  cohort " + plain(found["cohort"]),
    ]
    for number, stage in enumerate(found["stages"], start=1):
        lines.extend(["", *_stage_lines(number, stage)])
    return lines


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return one line for everything that a watcher wants to know of."""
    lines = []
    for number, (old, new) in enumerate(zip(before["stages"], after["stages"], strict=True), start=1):
        if old["state"] != new["state"]:
            lines.append(f"stage {number}: {coloured(new['state'], new['state'])}" + _because(new["reason"]))
        elif any(old[name] != new[name] for name in ("healthy", "failed", "lost")):
            lines.append(f"stage {number}: {_counts(new)}")
        known = {gate["gate"]: gate["verdict"] for gate in old["gates"]}
        for gate in new["gates"]:
            if known.get(gate["gate"]) != gate["verdict"]:
                verdict = gate["verdict"]
                lines.append(
                    f"stage {number}: gate {gate['gate']} {coloured(verdict, verdict)}" + _because(gate["reason"])
                )
    if before["state"] != after["state"]:
        lines.append(f"{plain(after['name'])}: {coloured(after['state'], after['state'])}" + _because(after["reason"]))
    return lines


def gate_cases(found: Mapping[str, Any]) -> list[Case]:
    """Return a rollout's gates for a report: each of each stage, and at the end how the whole stands.

    A gate that had not enough evidence is skipped, and so is the rollout's own case until it has ended.
    """
    outcomes: dict[str, Outcome] = {"pass": "passed", "fail": "failed"}
    ends: dict[str, Outcome] = {"completed": "passed", "rolled_back": "failed", "cancelled": "failed"}
    cases = [
        Case(
            group=f"{found['name']}.stage {number}",
            name=str(gate["gate"]),
            outcome=outcomes.get(str(gate["verdict"]), "skipped"),
            message=str(gate.get("reason") or gate["verdict"]),
        )
        for number, stage in enumerate(found["stages"], start=1)
        for gate in stage["gates"]
    ]
    message = f"{found['state']}: {found['reason']}" if found.get("reason") else str(found["state"])
    whole = Case(
        group=str(found["name"]), name="rollout", outcome=ends.get(str(found["state"]), "skipped"), message=message
    )
    return [*cases, whole]


def dry_run_lines(made: Mapping[str, Any]) -> list[str]:
    """Return what a plan would do."""
    lines = [
        f"{plain(made['name'])}: {plain(made['bundle'])} -> slot {plain(made['slot'])} (dry run, nothing was changed)"
    ]
    for stage in made["stages"]:
        names = plain(stage["devices"]) if stage["devices"] else "no further device"
        lines.append(
            f"  stage {stage['stage']}, up to {stage['percent']:g} %, {len(stage['devices'])} devices: {names}"
        )
    return [*lines, *(f"  note: {plain(note)}" for note in made["notes"])]


def history_rows(entries: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the rows of a history's table."""
    return [(ago(e["at"]), e["action"].removeprefix("rollout."), e["stage"], e["actor"], e["reason"]) for e in entries]


def _stage_lines(number: int, stage: Mapping[str, Any]) -> list[str]:
    state = stage["state"]
    head = f"  stage {number} (up to {stage['percent']:g} %)  {coloured(state, state)}"
    if state == "soaking" and stage.get("soak_until"):
        head += f", soak over {ago(stage['soak_until'])}"
    lines = [head]
    if stage["eligible"]:
        lines.append(f"    {_counts(stage)}")
    if stage["gates"]:
        rows = [_gate_row(gate) for gate in stage["gates"]]
        headers = ("gate", "verdict", "value", "bound", "at most", "evidence", "reason")
        lines.extend("    " + line for line in table_lines(headers, rows))
    for found in stage.get("faults", ())[:_FAULTS]:
        more = found["devices"] - len(found["examples"])
        who = plain(found["examples"]) + (f" and {more} more" if more else "")
        lines.append(f"    {who}: {plain(found['fault'])}")
    return lines


def _counts(stage: Mapping[str, Any]) -> str:
    names = ("eligible", "offered", "reported", "healthy", "failed", "lost")
    return ", ".join(f"{stage[name]} {name}" for name in names)


def _gate_row(gate: Mapping[str, Any]) -> tuple[Any, ...]:
    is_level = gate["gate"].startswith("accuracy_")
    unit = percent if is_level or gate["gate"] in _SHARES else plain
    evidence = f"{gate['devices']} devices"
    if gate["gate"] not in _COUNTS_DEVICES:
        what = "labels" if gate["gate"] == "accuracy_feedback" else "predictions"
        evidence = f"{gate['n']} {what}, {evidence}"
    threshold = unit(gate["threshold"])
    numbers = (unit(gate["value"]), unit(gate["bound"]), f"at least {threshold}" if is_level else threshold)
    return (gate["gate"], gate["verdict"], *numbers, evidence, gate["reason"])


def _because(reason: str) -> str:
    return f" - {plain(reason)}" if reason else ""
