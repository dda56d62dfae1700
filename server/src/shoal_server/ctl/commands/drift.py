"""`shoalctl drift`: what changed in inputs and predictions, where, since when, and the suspected cause."""

from __future__ import annotations

from typing import Any

import click

from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import ago, print_table
from shoal_server.ctl.program import Call, connected

_SCOPES = click.Choice(["fleet", "cohort", "device"])


@click.group()
def drift() -> None:
    """See what changed in inputs and predictions."""


@drift.command()
@click.argument("slot", required=False)
@click.option("--scope", type=_SCOPES, help="Only this level.")
@click.option("--all", "everything", is_flag=True, help="Also what does not drift.")
@connected
def show(call: Call, *, slot: str | None, scope: str | None, everything: bool) -> None:
    """Show what drifts: feature, where, since when, how much and the suspected cause."""
    verdict = None if everything else "drift"
    found = list(call.client.items("/api/v1/drift", slot=slot, scope=scope, verdict=verdict))
    call.show({"items": found}, lambda: _print(call, found, slot=slot))


def _print(call: Call, found: list[dict[str, Any]], *, slot: str | None) -> None:
    if not found:
        click.echo(quiet(list(call.client.items("/api/v1/drift", slot=slot, scope="fleet"))))
        return
    names = BundleNames(call.client)
    rows = [
        (
            one["feature"],
            where(one),
            one["verdict"],
            one["view"],
            one["effect"],
            ago(one["since"]),
            f"{one['slot']} ({names.of(one['digest'])})",
            one["cause"],
        )
        for one in sorted(found, key=lambda one: (one["slot"], one["verdict"] != "drift", -abs(one["effect"])))
    ]
    headers = ("feature", "where", "verdict", "view", "effect", "since", "slot", "suspected cause")
    print_table(headers, rows, empty="")


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
    return "No drift. See every stream: shoalctl drift show --all"
