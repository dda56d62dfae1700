"""`shoalctl drift report`: a slot's drift in full, as one HTML file for people or as JSON for programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from shoal_protocol.errors import CallerError
from shoal_server.ctl.arguments import parse_seconds, written
from shoal_server.ctl.commands.quality import quality_facts
from shoal_server.ctl.program import Call, connected

_HOURS = 3600.0
_MOST_HOURS = 2208


@click.command()
@click.argument("slot", required=False)
@click.option("--model", metavar="REF", help="Only this model or bundle: quality, quality:1.4.0, quality@champion.")
@click.option("--cohort", metavar="K=V", help="Only this cohort, such as site=bern.")
@click.option("--since", metavar="SPAN", default="7d", show_default=True, help="So far back, such as 24h or 7d.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="The HTML file [drift-SLOT.html].")
@connected
def report(
    call: Call, *, slot: str | None, model: str | None, cohort: str | None, since: str, output: Path | None
) -> None:
    """Write a report on a slot's drift: what, where, since when, how large, and the suspected cause.

    One HTML file that needs nothing else. With --json the same content is printed, and a file written only where
    --output asks for it. SLOT may be left out where only one is watched.

    Example: shoalctl drift report quality --since 30d --output report.html
    """
    span_s = parse_seconds(since)
    slot = slot or only_slot(call)
    begin = datetime.now(UTC) - timedelta(seconds=span_s)
    found = call.client.get(
        "/api/v1/drift/report", slot=slot, model=model, cohort=cohort, since=begin.isoformat(timespec="seconds")
    )
    hours = min(max(round(span_s / _HOURS), 1), _MOST_HOURS)
    found["quality"] = _quality(call, found, hours=hours)
    path = output or (None if call.json else Path(f"drift-{slot}.html"))
    if path is not None:
        from shoal_server.report.fleet import fleet_report  # noqa: PLC0415 - beside its only use

        told = [(str(one["bundle"] or one["digest"][:19]), quality_facts(one)) for one in found["quality"]]
        written(path, fleet_report(found, told))
    call.show(found, lambda: _print(found, path))


def only_slot(call: Call) -> str:
    """Return the slot that is watched, where there is one."""
    heard = sorted({str(one["slot"]) for one in call.client.items("/api/v1/drift", scope="fleet")})
    if len(heard) == 1:
        return heard[0]
    if not heard:
        raise CallerError(
            "nothing is watched yet", hint="no device has sent windows of a bundle with a reference profile"
        )
    raise CallerError(
        f"expected which slot the report is of: {', '.join(heard)}", hint=f"shoalctl drift report {heard[0]}"
    )


def _quality(call: Call, found: dict[str, Any], *, hours: int) -> list[dict[str, Any]]:
    """Return how right the bundles of a report are; of one cohort when the report is."""
    if not found["bundles"]:
        return []
    key, _, value = (found["cohort"] or "").partition("=")
    cohort = f"{key} = {value}" if value else None
    items = call.client.get("/api/v1/quality", slot=found["slot"], hours=hours, cohort=cohort)["items"]
    digests = {bundle["digest"] for bundle in found["bundles"]}
    return [one for one in items if one["digest"] in digests]


def _print(found: dict[str, Any], path: Path | None) -> None:
    for bundle in found["bundles"]:
        click.echo(f"{bundle['name']} in slot {found['slot']}:")
        for sentence in bundle["summary"]:
            click.echo(f"  {sentence}")
    if not found["bundles"]:
        click.echo(f"Nothing is watched in slot {found['slot']}.")
    if path is not None:
        click.echo(f"Report: {path}")
