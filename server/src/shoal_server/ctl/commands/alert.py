"""`shoalctl alert`: what people are told, and that somebody has seen to it."""

from __future__ import annotations

import click

from shoal_server.ctl.arguments import parse_seconds
from shoal_server.ctl.output import ago, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_STATES = click.Choice(["open", "acknowledged", "resolved", "all"])


@click.group()
def alert() -> None:
    """See alerts and acknowledge them."""


@alert.command("list")
@click.option("--state", type=_STATES, default="open", show_default=True, help="Which alerts.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Alerts at most, the newest first."
)
@click.option("--silenced", is_flag=True, help="Open ones that are kept out of sight for now, too.")
@connected
def list_alerts(call: Call, *, state: str, limit: int, silenced: bool) -> None:
    """List alerts, the newest first; open ones that are silenced only with --silenced.

    Example: shoalctl alert list --state all
    """
    wanted = None if state == "all" else state
    hidden = True if silenced or state != "open" else None
    found = list(call.client.items("/api/v1/alerts", limit=limit, state=wanted, silenced=hidden))

    def text() -> None:
        rows = [(a["id"], a["severity"], a["state"], ago(a["raised_at"]), a["title"], a["subject"]) for a in found]
        empty = "No alerts."
        if state == "open":
            quiet = not hidden and any(call.client.items("/api/v1/alerts", limit=1, state=wanted, silenced=True))
            empty = "No open alerts" + (", but silenced ones: shoalctl alert list --silenced" if quiet else ".")
        print_table(("id", "severity", "state", "raised", "alert", "about"), rows, empty=empty)

    call.show({"items": found}, text)


@alert.command()
@click.argument("number", type=int, metavar="ID")
@connected
def show(call: Call, *, number: int) -> None:
    """Show one alert with all that it says."""
    found = call.client.get(f"/api/v1/alerts/{number}")

    def text() -> None:
        names = ("id", "severity", "state", "kind", "subject", "title", "count", "acknowledged_by")
        times = {"raised": ago(found["raised_at"])}
        if found["resolved_at"]:
            times["resolved"] = ago(found["resolved_at"])
        if found["silenced_until"]:
            times["silenced until"] = found["silenced_until"]
        print_facts({name: found[name] for name in names} | times)
        click.echo()
        print_table(("what it says",), [(line,) for line in found["body"].splitlines()], empty="It says no more.")

    call.show(found, text)


@alert.command()
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="ID...")
@connected
def ack(call: Call, *, numbers: tuple[int, ...]) -> None:
    """Say that somebody has seen to it."""
    done = [call.client.post(f"/api/v1/alerts/{number}/ack") for number in numbers]
    rows = [(one["id"], one["state"], one["title"]) for one in done]
    call.show({"items": done}, lambda: print_table(("id", "state", "alert"), rows, empty=""))


@alert.command()
@click.argument("number", type=int, metavar="ID")
@click.option(
    "--for", "span", default="24h", show_default=True, metavar="TIME", help="How long: 30m, 24h, 7d; 0: no longer."
)
@connected
def silence(call: Call, *, number: int, span: str) -> None:
    """Keep an alert out of sight for a while, also when its cause goes and is back; a worse one is told.

    Example: shoalctl alert silence 12 --for 7d
    """
    done = call.client.post(f"/api/v1/alerts/{number}/silence", {"seconds": parse_seconds(span)})
    until = done["silenced_until"] or "no longer"
    call.show(done, lambda: print_facts({"alert": done["title"], "silenced until": until}))
