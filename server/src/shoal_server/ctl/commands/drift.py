"""`shoalctl drift`: what changed in inputs and predictions, where, since when, and the suspected cause."""

from __future__ import annotations

from typing import Any

import click

from shoal_server.ctl.client import segment
from shoal_server.ctl.commands import drift_replay, drift_report, drift_test
from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import ago, plain, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_BAR = 30
_MOST_LATE = 10
_MOST_CELLS = 40
_MOST_GAPS = 3
_SCOPES = click.Choice(["fleet", "cohort", "device"])


@click.group()
def drift() -> None:
    """See what changed in inputs and predictions."""


@drift.command()
@click.argument("slot", required=False, metavar="[SLOT[/FEATURE]]")
@click.option("--scope", type=_SCOPES, help="Only this level.")
@click.option("--all", "everything", is_flag=True, help="Also what does not drift.")
@connected
def show(call: Call, *, slot: str | None, scope: str | None, everything: bool) -> None:
    """Show what drifts: feature, where, since when, how much and the suspected cause.

    SLOT/FEATURE shows one feature in full, such as: shoalctl drift show quality/temp
    """
    if slot is not None and "/" in slot:
        name, feature = slot.split("/", 1)
        found_feature = call.client.get(f"/api/v1/drift/features/{segment(feature)}", slot=name, scope=scope)
        call.show(found_feature, lambda: _print_feature(found_feature))
        return
    verdict = None if everything else "drift"
    found = list(call.client.items("/api/v1/drift", slot=slot, scope=scope, verdict=verdict))
    told = call.client.get("/api/v1/drift/watched", slot=slot)
    watched, unlearnt = told["items"], told.get("being_learnt", [])
    call.show(
        {"items": found, "watched": watched, "being_learnt": unlearnt},
        lambda: _print(call, found, told, slot=slot),
    )


drift.add_command(drift_report.report)
drift.add_command(drift_replay.replay)
drift.add_command(drift_replay.export)
drift.add_command(drift_test.test)


def _print_feature(found: dict[str, Any]) -> None:
    drifting = [state for state in found["states"] if state["verdict"] == "drift"]
    for state in drifting or [state for state in found["states"] if state["scope"] == "fleet"]:
        click.echo(state["explanation"])
    if found["importance_text"]:
        click.echo(found["importance_text"])
    click.echo(found["false_alarms"])
    gap = found["gap"]
    told = (
        ""
        if gap["verdict"] in {"none", "unknown"}
        else ", beyond the tolerance"
        if gap["verdict"] == "drift"
        else ", too few rows to say"
    )
    against = "its first rows" if gap["verdict"] == "unknown" else "reference"
    click.echo()
    print_facts(
        {
            f"fleet against {against}": f"{gap['effect']:.2f} sd{told}",
            "PSI": f"{gap['psi']:.3f} (by chance up to {gap['psi_by_chance']:.3f})",
            "JS": f"{gap['js']:.4f} (by chance up to {gap['js_by_chance']:.4f})",
        }
    )
    click.echo()
    cells = [one for one in found["distribution"]["cells"] if max(one["reference"], one["live"]) > 0]
    most = max((max(one["reference"], one["live"]) for one in cells), default=1.0)
    rows = [
        (one["label"], f"{100 * one['reference']:.1f} %", f"{100 * one['live']:.1f} %", _bars(one, most))
        for one in cells
    ]
    print_table(
        ("value", "reference", f"{where(found)} now", "= reference, # now"),
        rows[:_MOST_CELLS],
        empty="Nothing was counted.",
    )


def _bars(cell: dict[str, Any], most: float) -> str:
    """Draw two shares on one line: what both have, then what one has more.

    >>> _bars({"reference": 0.5, "live": 0.25}, 1.0)
    '########======='
    """
    before, now = (round(_BAR * float(cell[side]) / most) for side in ("reference", "live"))
    return "#" * now + "=" * max(before - now, 0)


def _print(call: Call, found: list[dict[str, Any]], told: dict[str, Any], *, slot: str | None) -> None:
    watched = told["items"]
    for one in told.get("being_learnt", []):
        click.echo(f"{plain(one['slot'])}: {unlearnt_words(one)}")
    if not found:
        if watched or not told.get("being_learnt"):
            click.echo(quiet(list(call.client.items("/api/v1/drift", slot=slot, scope="fleet"))))
        _print_gaps(watched)
        _print_late(watched)
        _print_promises(watched)
        return
    names = BundleNames(call.client)
    rows = [
        (
            one["title"],
            where(one),
            one["verdict"],
            one["view"],
            one["effect"],
            ago(one["since"]),
            f"{one['slot']} ({names.of(one['digest'])})",
            one["cause"],
        )
        for one in sorted(found, key=_order)
    ]
    headers = ("feature", "where", "verdict", "view", "effect", "since", "slot", "suspected cause")
    print_table(headers, rows, empty="")
    _print_gaps(watched)
    _print_late(watched)
    _print_promises(watched)


def _order(one: dict[str, Any]) -> tuple[str, bool, float, float]:
    """Put what drifts first, and of it what matters most, by the server's measure; older servers tell effects alone."""
    size = abs(one["effect"])
    return one["slot"], one["verdict"] != "drift", -one.get("matters", size), -size


def _print_gaps(watched: list[dict[str, Any]]) -> None:
    """Say where a fleet is unlike the training data, which a baseline takes for the usual."""
    for one in watched:
        beyond = one.get("beyond_training") or []
        if beyond:
            most = ", ".join(f"{plain(stream['title'])} ({stream['effect']:.2f} sd)" for stream in beyond[:_MOST_GAPS])
            more = f" and {len(beyond) - _MOST_GAPS} more" if len(beyond) > _MOST_GAPS else ""
            click.echo(f"{plain(one['slot'])}: unlike the training data in {most}{more}.")


def _print_late(watched: list[dict[str, Any]]) -> None:
    """Say what devices saw whose windows came too late to be judged with the fleet."""
    late = [(one["slot"], found) for one in watched for found in one.get("late", ())]
    for slot, found in late[:_MOST_LATE]:
        click.echo(f"{plain(slot)}: {plain(found['device'])} was not heard in time: {late_words(found)}")
    if len(late) > _MOST_LATE:
        click.echo(f"{len(late) - _MOST_LATE} more devices were not heard in time: --json")


def late_words(found: dict[str, Any]) -> str:
    """Say what the late windows of a device tell.

    >>> late_words({"windows": 40, "from": "2026-11-01T08:00:00.000Z", "to": "2026-11-03T08:00:00.000Z",
    ...     "verdict": "none"})
    '40 windows of 2026-11-01 08:00 to 2026-11-03 08:00 UTC came late; no drift in them.'
    """
    first, last = (found[end][:16].replace("T", " ") for end in ("from", "to"))
    told = {
        "none": "no drift in them",
        "learning": "too few for a baseline yet",
        "drift": f"they drift, most {found.get('feature')} ({found.get('change')})",
    }[found["verdict"]]
    return f"{found['windows']} windows of {first} to {last} UTC came late; {told}."


def _print_promises(watched: list[dict[str, Any]]) -> None:
    """Say once for each setting how often it may be wrong."""
    for told in dict.fromkeys(one["false_alarms"] for one in watched):
        slots = ", ".join(dict.fromkeys(one["slot"] for one in watched if one["false_alarms"] == told))
        click.echo(f"{slots}: {told[0].lower()}{told[1:]}")


def unlearnt_words(one: dict[str, Any]) -> str:
    """Say how far learning what to count of a bundle without data has come.

    >>> unlearnt_words({"told": 1, "devices": 3})
    'learning what to count of the first rows; 1 of 3 devices told of theirs. No drift is looked for until then.'
    """
    told = f"{one['told']} of {one['devices']} {'device' if one['devices'] == 1 else 'devices'} told of theirs"
    return f"learning what to count of the first rows; {told}. No drift is looked for until then."


def where(one: dict[str, Any]) -> str:
    """Return the scope in words.

    >>> where({"scope": "cohort", "name": "site=bern"}), where({"scope": "fleet", "name": "fleet"})
    ('site=bern', 'the fleet')
    """
    return "the fleet" if one["scope"] == "fleet" else str(one["name"])


def quiet(fleet: list[dict[str, Any]]) -> str:
    """Say why nothing drifts, from the fleet's own streams.

    >>> quiet([])
    'Nothing is watched yet: no device has sent windows of a bundle with a reference profile.'
    """
    if not fleet:
        return "Nothing is watched yet: no device has sent windows of a bundle with a reference profile."
    learning = [one for one in fleet if one["verdict"] == "learning"]
    if learning:
        return f"No drift; learning the baseline, window {learning[0]['windows']} of {learning[0]['baseline_windows']}."
    alone = all(one["verdict"] == "too_few" for one in fleet)
    few = " Too few devices are heard at the same time to compare them; each is watched by itself." if alone else ""
    return f"No drift.{few} See every stream: shoalctl drift show --all"
