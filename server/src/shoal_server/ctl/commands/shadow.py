"""`shoalctl shadow`: let a bundle see the same inputs as the active one, and read how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.topics import check_device
from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import print_facts, print_table
from shoal_server.ctl.program import Call, connected

_PAIRS = 12


@click.group()
def shadow() -> None:
    """Run a bundle beside the active one, answering nobody, and compare them."""


@shadow.command("set")
@click.argument("slot")
@click.argument("bundle")
@click.option("-q", "--cohort", metavar="QUERY", help="Which devices, as they are now: site = bern, or all.")
@click.option("--device", metavar="NAME", help="Only this device.")
@connected
def set_shadow(call: Call, *, slot: str, bundle: str, cohort: str | None, device: str | None) -> None:
    """Let devices run BUNDLE as the shadow of SLOT.

    Each fetches it, tests it as any bundle, and shows it a share of its inputs; the active model goes on answering.

    Example: shoalctl shadow set quality quality:1.5.0 --cohort "site = bern"
    """
    body = {"slot": slot, "bundle": bundle, "cohort": _cohort(cohort, device)}
    _show_change(call, call.client.post("/api/v1/shadows", body))


@shadow.command()
@click.argument("slot")
@click.option("-q", "--cohort", metavar="QUERY", help="Which devices; all when left out.")
@click.option("--device", metavar="NAME", help="Only this device.")
@connected
def unset(call: Call, *, slot: str, cohort: str | None, device: str | None) -> None:
    """End the shadows of SLOT.

    Example: shoalctl shadow unset quality
    """
    where = _cohort(cohort, device) if cohort or device else "all"
    _show_change(call, call.client.post("/api/v1/shadows/unset", {"slot": slot, "cohort": where}))


@shadow.command()
@click.argument("slot", required=False)
@click.option("--device", metavar="NAME", help="Only of this device.")
@click.option("--hours", type=click.IntRange(1, 2160), default=24, show_default=True, help="Of the last hours.")
@connected
def show(call: Call, *, slot: str | None, device: str | None, hours: int) -> None:
    """Show how far shadows agree with the active models.

    Example: shoalctl shadow show quality --hours 6
    """
    found = call.client.get("/api/v1/shadows", slot=slot, device=device, hours=hours)
    call.show(found, lambda: _print(found, BundleNames(call.client), hours=hours))


def _cohort(cohort: str | None, device: str | None) -> str:
    if (cohort is None) == (device is None):
        raise CallerError("expected one of --cohort QUERY and --device NAME", hint="all devices: --cohort all")
    return cohort if cohort is not None else f'id = "{check_device(device or "")}"'


def _show_change(call: Call, answer: Mapping[str, Any]) -> None:
    def text() -> None:
        verb = "is wanted on" if answer["shadow"] else "is no longer wanted on"
        click.echo(f"A shadow in slot {answer['slot']} {verb} {_devices(answer['devices'])}.")
        if answer["skipped"]:
            click.echo(f"Left out, since nothing else runs in that slot there: {', '.join(answer['skipped'][:10])}")

    call.show(answer, text)


def _print(found: Mapping[str, Any], names: BundleNames, *, hours: int) -> None:
    for one in found["wanted"]:
        click.echo(f"slot {one['slot']}: {names.of(one['shadow'])} is wanted on {_devices(one['devices'])}")
    for one in found["items"]:
        click.echo(f"\nslot {one['slot']}, the last {hours} h")
        print_facts(
            {
                "  active": names.of(one["digest"]),
                "  shadow": names.of(one["shadow"]),
                "  devices": one["devices"],
                "  rows compared": one["rows"],
                "  agreement": _percent(one["agreement"]),
                "  mean difference": _number(one["mean_difference"]),
                "  mean absolute difference": _number(one["mean_absolute"]),
                "  latency, active": _latency(one["latency_us"]["active"]),
                "  latency, shadow": _latency(one["latency_us"]["shadow"]),
                "  rows dropped": one["dropped"],
                "  errors of the shadow": one["errors"],
            }
        )
        if one["pairs"]:
            click.echo()
            rows = [(pair["active"], pair["shadow"], pair["rows"]) for pair in one["pairs"][:_PAIRS]]
            print_table(("active said", "shadow said", "rows"), rows, empty="")
    if not found["items"] and not found["wanted"]:
        click.echo("No shadow runs. Let one: shoalctl shadow set SLOT NAME:VERSION --cohort all")


def _devices(names: Sequence[str]) -> str:
    return "1 device" if len(names) == 1 else f"{len(names)} devices"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _latency(told: Mapping[str, float | None]) -> str:
    p50, p95 = told["p50"], told["p95"]
    return "-" if p50 is None else f"p50 <= {p50:g} us, p95 <= {p95 or float('inf'):g} us"
