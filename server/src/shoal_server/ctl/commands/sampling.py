"""`shoalctl sampling`: let devices send some raw inputs for a time, and fetch or delete what came."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import click

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.topics import check_device
from shoal_server.ctl.arguments import parse_seconds
from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import percent, print_table
from shoal_server.ctl.program import Call, connected

_MAX_DAYS = 30
_FIRST = ("at", "device", "digest", "reason")


@click.group()
def sampling() -> None:
    """Let devices send some raw inputs for a time; fetch or delete what came."""


@sampling.command()
@click.argument("slot")
@click.option("--share", required=True, metavar="SHARE", help="Of the rows: 1% or 0.01.")
@click.option("--for", "span", required=True, metavar="TIME", help="How long: 90s, 30m, 1h, 7d; 30 days at most.")
@click.option("-q", "--cohort", metavar="QUERY", help="Which devices, as they are now: site = bern, or all.")
@click.option("--device", metavar="NAME", help="Only this device.")
@connected
def start(call: Call, *, slot: str, share: str, span: str, cohort: str | None, device: str | None) -> None:
    """Permit raw inputs of SLOT to leave devices.

    The permission is part of the signed assignment and ends by itself. Half of the share goes to random rows, half to
    unsure and unusual ones.

    Example: shoalctl sampling start quality --share 1% --for 1h --cohort "site = bern"
    """
    where = _cohort(cohort, device)
    if where is None:
        raise CallerError("expected one of --cohort QUERY and --device NAME", hint="all devices: --cohort all")
    body = {"slot": slot, "cohort": where, "share": _share(share), "seconds": _span(span)}
    answer = call.client.post("/api/v1/sampling", body)
    text = (
        f"{percent(answer['share'])} of the rows of slot {slot} may leave {_devices(answer['devices'])} "
        f"until {answer['until']}. End it: shoalctl sampling stop {slot}"
    )
    call.show(answer, lambda: click.echo(text))


@sampling.command()
@click.argument("slot")
@click.option("-q", "--cohort", metavar="QUERY", help="Which devices; all when left out.")
@click.option("--device", metavar="NAME", help="Only this device.")
@connected
def stop(call: Call, *, slot: str, cohort: str | None, device: str | None) -> None:
    """Withdraw the permission for SLOT. What is stored stays; see `delete`.

    Example: shoalctl sampling stop quality
    """
    answer = call.client.post("/api/v1/sampling/stop", {"slot": slot, "cohort": _cohort(cohort, device) or "all"})
    call.show(answer, lambda: click.echo(f"No raw row of slot {slot} may leave {_devices(answer['devices'])} now."))


@sampling.command()
@click.argument("slot", required=False)
@connected
def show(call: Call, *, slot: str | None) -> None:
    """Show which devices may send raw inputs, and what is stored.

    Example: shoalctl sampling show
    """
    found = call.client.get("/api/v1/sampling", slot=slot)
    call.show(found, lambda: _print(found, BundleNames(call.client)))


@sampling.command()
@click.argument("slot")
@click.option("--device", metavar="NAME", help="Only of this device.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), help="By the file's name when left out.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Standard output when left out.")
@connected
def download(call: Call, *, slot: str, device: str | None, form: str | None, output: Path | None) -> None:
    """Fetch the stored rows of SLOT, as JSON lines or CSV; this is noted in the audit log.

    Example: shoalctl sampling download quality -o rows.csv
    """
    form = form or ("csv" if output is not None and output.suffix == ".csv" else "jsonl")
    rows = _rows(call, slot, device)
    with nullcontext(sys.stdout) if output is None else output.open("w", newline="", encoding="utf-8") as file:
        count = _write_csv(file, rows) if form == "csv" else _write_lines(file, rows)
    click.echo(f"{count} rows" + ("" if output is None else f" in {output}"), err=True)


@sampling.command()
@click.argument("slot")
@click.option("-q", "--cohort", metavar="QUERY", help="Only of these devices.")
@click.option("--device", metavar="NAME", help="Only of this device.")
@connected
def delete(call: Call, *, slot: str, cohort: str | None, device: str | None) -> None:
    """Delete the stored rows of SLOT.

    Example: shoalctl sampling delete quality --device cam-7
    """
    which = {"slot": slot, "cohort": _cohort(cohort, device) or "all"}
    answer = call.client.request("DELETE", "/api/v1/samples", parameters=which)
    call.show(answer, lambda: click.echo(f"{answer['rows']} rows of slot {slot} are deleted."))


def _rows(call: Call, slot: str, device: str | None) -> Iterator[dict[str, Any]]:
    for batch in call.client.items("/api/v1/samples", slot=slot, device=device):
        for row in batch["rows"]:
            yield {"at": row["at"], "device": batch["device"], "digest": batch["digest"], **row}


def _write_lines(file: IO[str], rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count


def _write_csv(file: IO[str], rows: Iterator[dict[str, Any]]) -> int:
    """Write one column a feature and output; what is no plain value is written as JSON."""
    plain = [{**{name: row[name] for name in _FIRST}, **_columns(row)} for row in rows]
    names = list(dict.fromkeys(name for row in plain for name in row)) or list(_FIRST)
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return len(plain)


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {f"input.{name}": value for name, value in row["inputs"].items()}
    values |= {f"output.{name}": value for name, value in row["outputs"].items()}
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}


def _print(found: Mapping[str, Any], names: BundleNames) -> None:
    for one in found["permitted"]:
        share, until = percent(one["share"]), one["until"]
        click.echo(f"slot {one['slot']}: {share} of the rows may leave {_devices(one['devices'])} until {until}")
    if not found["permitted"]:
        click.echo("No raw row may leave any device.")
    rows = [
        (one["slot"], names.of(one["digest"]), one["devices"], one["rows"], one["seen"], one["size_bytes"])
        for one in found["stored"]
    ]
    if rows:
        click.echo()
        print_table(("slot", "bundle", "devices", "rows stored", "of answered", "bytes"), rows, empty="")


def _cohort(cohort: str | None, device: str | None) -> str | None:
    if cohort is not None and device is not None:
        raise CallerError("expected one of --cohort QUERY and --device NAME, not both")
    return cohort if device is None else f'id = "{check_device(device)}"'


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise CallerError(f"expected a share of the rows such as 1% or 0.01, got {text!r}")
    return share


def _span(text: str) -> float:
    seconds = parse_seconds(text)
    if not 1 <= seconds <= _MAX_DAYS * 86_400:
        raise CallerError(f"expected a time from 1s to {_MAX_DAYS}d, got {text!r}")
    return seconds


def _devices(names: list[str]) -> str:
    return "1 device" if len(names) == 1 else f"{len(names)} devices"
