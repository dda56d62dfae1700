"""`shoalctl rollout`: begin, watch, stop and take back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shoal_protocol.errors import CallerError
from shoal_protocol.junit import junit_xml
from shoal_server.ctl.arguments import read_document
from shoal_server.ctl.client import segment
from shoal_server.ctl.errors import ExitCode
from shoal_server.ctl.output import ago, print_table
from shoal_server.ctl.program import Call, connected
from shoal_server.ctl.rollout_text import changes_between, dry_run_lines, gate_cases, history_rows, status_lines

_BASE = "/api/v1/rollouts"
_ENDED_WELL = frozenset({"completed"})
_ENDED_BADLY = frozenset({"rolled_back", "cancelled"})


@click.group()
def rollout() -> None:
    """Move a cohort to a bundle by stages; watch and stop it."""


@rollout.command()
@click.option(
    "-f",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="The plan, YAML or JSON; - reads it from stdin.",
)
@click.option("--dry-run", is_flag=True, help="Only show the exact devices of each stage.")
@click.option("--watch", is_flag=True, help="Stay and watch until it ends.")
@connected
def create(call: Call, *, path: Path, dry_run: bool, watch: bool) -> None:
    """Begin a rollout from a plan."""
    plan = read_document(path)
    made = call.client.post(_BASE, _plain(plan), dry_run="true" if dry_run else None)
    if dry_run:
        call.show(made, lambda: _echo(dry_run_lines(made)))
    elif watch:
        _watch(call, made["name"])
    else:
        call.show(made, lambda: _created(made))


@rollout.command("list")
@click.option(
    "--limit", type=click.IntRange(1), default=30, show_default=True, help="Rollouts at most, the newest first."
)
@connected
def list_rollouts(call: Call, *, limit: int) -> None:
    """List rollouts, the newest first."""
    found = list(call.client.items(_BASE, limit=limit))
    rows = [
        (
            r["name"],
            r["state"],
            r["bundle"],
            f"{sum(s['state'] == 'passed' for s in r['stages'])}/{len(r['stages'])}",
            f"{sum(s['healthy'] for s in r['stages'])}/{sum(s['eligible'] for s in r['stages'])}",
            ago(r["created_at"]),
            r["reason"],
        )
        for r in found
    ]
    headers = ("rollout", "state", "bundle", "stages", "healthy", "created", "reason")
    empty = "No rollouts yet. Begin one: shoalctl rollout create -f plan.yaml --dry-run"
    call.show({"items": found}, lambda: print_table(headers, rows, empty=empty))


@rollout.command()
@click.argument("name")
@click.option("--watch", is_flag=True, help="Stay until it ends; exit code 3 when it ended rolled back or cancelled.")
@click.option("--devices", is_flag=True, help="List its devices too.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write its gates as a JUnit report, for CI servers.",
)
@connected
def status(call: Call, *, name: str, watch: bool, devices: bool, junit: Path | None) -> None:
    """Show where a rollout stands: stages with honest denominators, gates with their reasons."""
    if watch:
        try:
            _watch(call, name)
        finally:
            _report(call, name, junit)
        return
    _report(call, name, junit)
    found = call.client.get(f"{_BASE}/{segment(name)}")
    members = list(call.client.items(f"{_BASE}/{segment(name)}/devices")) if devices else None

    def text() -> None:
        _echo(status_lines(found))
        if members is not None:
            rows = [
                (
                    m["device"],
                    m["stage"],
                    m["previous_name"],
                    ago(m["offered_at"]),
                    ago(m["proven_at"]),
                    m["returning"],
                    m.get("fault"),
                )
                for m in members
            ]
            click.echo()
            headers = ("device", "stage", "before", "offered", "healthy", "returning", "fault")
            print_table(headers, rows, empty="It has no devices.")

    call.show(found if members is None else {**found, "devices": members}, text)


@rollout.command()
@click.argument("name")
@connected
def history(call: Call, *, name: str) -> None:
    """Tell what happened to a rollout, the oldest first."""
    found = list(call.client.items(f"{_BASE}/{segment(name)}/history"))
    headers = ("when", "what", "stage", "who", "why")
    call.show({"items": found}, lambda: print_table(headers, history_rows(found), empty="Nothing happened yet."))


@rollout.command()
@click.argument("name")
@click.option("--reason", default="", help="Why; kept in history and audit.")
@click.option("--leave", is_flag=True, help="End it and leave the bundle where it is.")
@connected
def abort(call: Call, *, name: str, reason: str, leave: bool) -> None:
    """Stop a rollout and take the bundle back from every device that got it."""
    _act(call, name, "abort", {"reason": reason, "leave": leave})


def _add_verb(verb: str, text: str) -> None:
    """Add a command that asks a rollout for one thing."""

    @rollout.command(verb, help=text)
    @click.argument("name")
    @click.option("--reason", default="", help="Why; kept in history and audit.")
    @connected
    def command(call: Call, *, name: str, reason: str) -> None:
        _act(call, name, verb, {"reason": reason})


for _verb, _text in {
    "pause": "Offer the bundle to no further device; devices keep what they have.",
    "resume": "Go on; the present stage is judged anew.",
    "promote": "End the soak of the present stage now; its gates are still judged.",
    "approve": "Let a rollout or a stage begin that waits for approval.",
    "cancel": "End a rollout before it ran.",
    "retry": "Offer the bundle once more to devices that failed.",
    "undo": "Take a completed rollout back.",
}.items():
    _add_verb(_verb, _text)


def _act(call: Call, name: str, verb: str, body: dict[str, Any]) -> None:
    found = call.client.post(f"{_BASE}/{segment(name)}/actions/{verb}", body)
    call.show(found, lambda: _echo(status_lines(found)[:2]))


def _watch(call: Call, name: str) -> None:
    """Follow a rollout until it ends, printing what changes; JSON: one document a change."""
    before: dict[str, Any] | None = None
    while True:
        found = call.client.get(f"{_BASE}/{segment(name)}")
        if call.json and found != before:
            import json  # noqa: PLC0415 - beside its only use

            click.echo(json.dumps(found, ensure_ascii=False))
        elif before is None:
            _echo(status_lines(found))
        else:
            _echo(changes_between(before, found))
        if found["state"] in _ENDED_WELL:
            return
        if found["state"] in _ENDED_BADLY:
            raise click.exceptions.Exit(ExitCode.ROLLED_BACK)
        before = found
        call.sleep(1.0)


def _report(call: Call, name: str, path: Path | None) -> None:
    """Write a rollout's gates as they stand now, where a file was named for them."""
    if path is None:
        return
    found = call.client.get(f"{_BASE}/{segment(name)}")
    try:
        path.write_bytes(junit_xml(f"rollout {found['name']} of {found['bundle']}", gate_cases(found)))
    except OSError as error:
        raise CallerError(f"the report {path} can't be written: {error.strerror or error}") from error


def _created(made: dict[str, Any]) -> None:
    _echo(status_lines(made)[:2])
    click.echo(f"Watch it: shoalctl rollout status {made['name']} --watch", err=True)


def _echo(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)


def _plain(value: Any) -> Any:
    """Make dates of YAML into text, as JSON has none."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
