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
@connected
def list_alerts(call: Call, *, state: str, limit: int) -> None:
    """List alerts, the newest first."""
    wanted = None if state == "all" else state
    silenced = True if state == "all" else None
    found = list(call.client.items("/api/v1/alerts", limit=limit, state=wanted, silenced=silenced))
    rows = [(a["id"], a["severity"], a["state"], ago(a["raised_at"]), a["title"], a["subject"]) for a in found]
    headers = ("id", "severity", "state", "raised", "alert", "about")
    empty = "No open alerts." if state == "open" else "No alerts."
    call.show({"items": found}, lambda: print_table(headers, rows, empty=empty))


@alert.command()
@click.argument("number", type=int, metavar="ID")
@connected
def show(call: Call, *, number: int) -> None:
    """Show one alert with all that it says."""
    found = call.client.get(f"/api/v1/alerts/{number}")

    def text() -> None:
        names = ("id", "severity", "state", "kind", "subject", "title", "count", "acknowledged_by")
        print_facts({name: found[name] for name in names} | {"raised": ago(found["raised_at"])})
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
@click.option("--for", "span", default="24h", show_default=True, metavar="TIME", help="How long: 30m, 24h, 7d.")
@connected
def silence(call: Call, *, number: int, span: str) -> None:
    """Keep an alert out of sight for a while."""
    done = call.client.post(f"/api/v1/alerts/{number}/silence", {"seconds": parse_seconds(span)})
    call.show(done, lambda: print_facts({"alert": done["title"], "silenced until": done["silenced_until"]}))
