"""`shoalctl device`: what every device should run and really runs; labels, pins, the end of a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from shoal_protocol.bundle.layout import MODEL_ONNX
from shoal_server.ctl.arguments import parse_labels
from shoal_server.ctl.client import segment
from shoal_server.ctl.commands.device_by_hand import export_parcel, import_mail
from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import ago, plain, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_ALERTS = 5


@click.group()
def device() -> None:
    """See and manage devices."""


@device.command("list")
@click.option("-q", "--cohort", "query", metavar="QUERY", help="Such as: site in (bern, basel) and not label.frozen")
@click.option("--limit", type=click.IntRange(1), help="Devices at most; all when left out.")
@connected
def list_devices(call: Call, *, query: str | None, limit: int | None) -> None:
    """List devices: whether they are connected and what they run."""
    found = list(call.client.items("/api/v1/devices", limit=limit, q=query))

    def text() -> None:
        names = BundleNames(call.client)
        rows = [(d["id"], _standing(d), _running(d, names), d["labels"], d["agent_version"], _seen(d)) for d in found]
        empty = "No device matches." if query else "No devices yet. Let one join: shoalctl token create"
        print_table(("device", "state", "runs", "labels", "agent", "last seen"), rows, empty=empty)

    call.show({"items": found}, text)


@device.command()
@click.argument("name")
@connected
def show(call: Call, *, name: str) -> None:
    """Show one device: each slot with what should run and what really runs, and its open alerts."""
    found = call.client.get(f"/api/v1/devices/{segment(name)}")

    def text() -> None:
        _print_device(found, BundleNames(call.client))
        alerts = list(call.client.items("/api/v1/alerts", subject=f"device:{found['id']}", state="open", limit=_ALERTS))
        if alerts:
            click.echo()
        for alert in alerts:
            click.echo(
                f"alert {alert['id']}, {ago(alert['raised_at'])}: {plain(alert['title'])}; {plain(alert['body'])}"
            )

    call.show(found, text)


@device.command()
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@connected
def label(call: Call, *, name: str, changes: tuple[str, ...]) -> None:
    """Set labels (site=bern) and take labels away (site-)."""
    gone: dict[str, str | None] = {word[:-1]: None for word in changes if word.endswith("-") and "=" not in word}
    wanted = {**gone, **parse_labels(word for word in changes if word[:-1] not in gone or "=" in word)}
    answer = call.client.request("PATCH", f"/api/v1/devices/{segment(name)}/labels", body={"labels": wanted})
    call.show(answer, lambda: print_facts({"device": answer["id"], "labels": answer["labels"]}))


@device.command()
@click.argument("name")
@click.option("--slot", help="Only this slot; every slot when left out.")
@click.option("--reason", default="", help="Why; shown to everybody.")
@connected
def pin(call: Call, *, name: str, slot: str | None, reason: str) -> None:
    """Keep rollouts from changing a device."""
    body = {"reason": reason or "pinned by shoalctl"} | ({"slot": slot} if slot else {})
    _change(call, name, "pin", body)


@device.command()
@click.argument("name")
@click.option("--slot", help="Only this slot; every slot when left out.")
@connected
def unpin(call: Call, *, name: str, slot: str | None) -> None:
    """Let rollouts change a device again."""
    _change(call, name, "unpin", {"slot": slot} if slot else {})


@device.command()
@click.argument("name")
@connected
def accept(call: Call, *, name: str) -> None:
    """Let a pending device in."""
    _change(call, name, "accept", None)


@device.command()
@click.argument("name")
@connected
def rotate(call: Call, *, name: str) -> None:
    """Have a device get itself new credentials: a new key and a new secret.

    It goes on working meanwhile, and needs nobody. What it held before is void from the moment on when the new ones are
    first used, so of two machines that were given one identity (a copied disk) only the one that is quicker stays in.

    Example: shoalctl device rotate cam-bern-07
    """
    answer = call.client.post(f"/api/v1/devices/{segment(name)}/rotate", None)
    call.show(answer, lambda: print_facts({"device": answer["id"], "credentials": credentials_text(answer)}))


@device.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
@connected
def revoke(call: Call, *, name: str, yes: bool) -> None:
    """Make a device's credentials void and end its connection; its model goes on running there."""
    _confirm(f"Revoke {name}?", yes=yes)
    _change(call, name, "revoke", None)


@device.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
@connected
def decommission(call: Call, *, name: str, yes: bool) -> None:
    """Forget a device; its name is free again, history and audit keep naming it."""
    _confirm(f"Decommission {name}?", yes=yes)
    _change(call, name, "decommission", None)


def credentials_text(found: Mapping[str, Any]) -> str:
    """Return which credentials a device holds, since when, and whether it is to get others."""
    told = found["credential"]
    text = f"number {told['number']}, since {ago(told['held_since'])}"
    return f"{text}; asked to get number {told['number'] + 1}" if told["rotating"] else text


def presence(found: Mapping[str, Any]) -> str:
    """Return one word for whether a device takes part and is connected."""
    if found["state"] != "accepted":
        return str(found["state"])
    return "online" if found["online"] else "offline"


def _standing(found: Mapping[str, Any]) -> str:
    """Return the word of `presence`, and whether two machines seem to speak as this device."""
    return f"{presence(found)}, twice?" if found["clone_suspected_at"] else presence(found)


def _clone(found: Mapping[str, Any]) -> dict[str, str]:
    at = found["clone_suspected_at"]
    told = f"seen {ago(at)}; `shoalctl device rotate {found['id']}` leaves the name to one of them"
    return {"two machines": told} if at else {}


def _seen(found: Mapping[str, Any]) -> str:
    return "now" if found["online"] else ago(found["last_seen_at"])


def _change(call: Call, name: str, verb: str, body: Any) -> None:
    answer = call.client.post(f"/api/v1/devices/{segment(name)}/{verb}", body)
    shown = {"device": answer["id"], "state": answer["state"]} | (
        {"pins": answer["pins"]} if answer.get("pins") else {}
    )
    call.show(answer, lambda: print_facts(shown))


def _confirm(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


def _running(found: Mapping[str, Any], names: BundleNames) -> str:
    words = []
    for slot, report in found["slots"].items():
        text = (
            names.of(report.get("active")) if report.get("active") else str(report.get("state") or "nothing reported")
        )
        if report.get("error"):
            text += f" ({report['error']['code']})"
        elif report.get("waiting"):
            text += f" (waits: {report['waiting']['code']})"
        words.append(text if len(found["slots"]) == 1 else f"{slot}: {text}")
    return ", ".join(words)


def _shadow(report: Mapping[str, Any], names: BundleNames) -> str:
    """Return what should and what does run beside the active model."""
    told = report.get("shadow") or {}
    wanted = (report.get("desired") or {}).get("shadow")
    error = told.get("error")
    words = f"{names.of(wanted or told.get('digest'))} {told.get('state') or 'not reported yet'}"
    if not wanted:
        words += ", no longer wanted"
    return words + (f" ({error['code']}: {error['message']})" if error else "")


def _fault(fault: Mapping[str, Any] | None) -> str | None:
    return f"{fault['code']}: {fault['message']}" if fault else None


def _hold(hold: Mapping[str, Any] | None) -> str | None:
    """Return what somebody at the device said about updates."""
    if not hold:
        return None
    end = f"until {hold['until']}" if hold["until"] else "until `shoal-agent unhold` there"
    return f"since {hold['since']}, {end}" + (f": {hold['reason']}" if hold["reason"] else "")


def _print_device(found: Mapping[str, Any], names: BundleNames) -> None:
    print_facts(
        {
            "device": found["id"],
            "state": presence(found),
            "last seen": _seen(found),
            "labels": found["labels"],
            "facts": found["facts"],
            "pins": found["pins"],
            "on hold": _hold(found.get("hold")),
            "credentials": credentials_text(found),
            "assignment": f"generation {found['generation']}, the device has seen {found['generation_reported']}",
        }
        | _clone(found)
    )
    for slot, report in found["slots"].items():
        desired = report.get("desired") or {}
        click.echo(f"\nslot {slot}")
        print_facts(
            {
                "  desired": names.of(desired.get("digest")),
                "  runs": names.of(report.get("active")) + _form(report),
                "  trial passed for": names.of(report.get("proven")),
                "  can return to": names.of(report.get("previous")),
                "  state": report.get("state"),
            }
            | ({"  shadow": _shadow(report, names)} if desired.get("shadow") or report.get("shadow") else {})
            | {
                "  waiting": _fault(report.get("waiting")),
                "  error": _fault(report.get("error")),
            }
        )


def _form(report: Mapping[str, Any]) -> str:
    """Return which form of the model answers, where it is not the canonical one."""
    form = report.get("variant")
    return "" if form in {None, "", MODEL_ONNX} else f" in the variant {plain(form)}"


device.add_command(export_parcel)
device.add_command(import_mail)
