"""`shoalctl webhook`: send events to other programs, and see what came of it."""

from __future__ import annotations

from typing import Any

import click

from shoal_server.ctl.client import segment
from shoal_server.ctl.errors import ExitCode
from shoal_server.ctl.output import NOTHING, ago, plain, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_FORMATS = click.Choice(["cloudevents", "slack", "teams"])
_SEVERITIES = click.Choice(["info", "warning", "critical"])
_ANY_SEVERITY = click.Choice(["info", "warning", "critical", "any"])
_STATES = click.Choice(["pending", "delivered", "failed"])
_TYPES_HELP = "Only events of this type, such as 'rollout.*' or alert.opened; may be repeated."


@click.group()
def webhook() -> None:
    """Send events to other programs and chats; see what came of it.

    Example: shoalctl webhook create chat https://hooks.slack.com/services/T0/B0/x --format slack --type 'alert.*'
    """


@webhook.command("list")
@connected
def list_webhooks(call: Call) -> None:
    """List webhooks: what they want, and whether they get it.

    Example: shoalctl webhook list
    """
    found = list(call.client.items("/api/v1/webhooks"))
    rows = [(w["name"], _state(w), w["types"], w["format"], ago(w["delivered_at"]), w["url"]) for w in found]
    headers = ("name", "state", "types", "format", "last delivered", "url")
    empty = "No webhooks. Make one: shoalctl webhook create NAME URL"
    call.show({"items": found}, lambda: print_table(headers, rows, empty=empty))


@webhook.command()
@connected
def types(call: Call) -> None:
    """List the types of events that there are.

    Example: shoalctl webhook types
    """
    found = list(call.client.items("/api/v1/event-types"))
    rows = [(one["short"], one["when"]) for one in found]
    call.show({"items": found}, lambda: print_table(("type", "when"), rows, empty=""))


@webhook.command()
@click.argument("name")
@click.argument("target", metavar="URL")
@click.option("--type", "patterns", multiple=True, metavar="TYPE", help=f"{_TYPES_HELP}  [all]")
@click.option("--min-severity", type=_SEVERITIES, help="Leave out alerts below this severity.  [none left out]")
@click.option("--format", "form", type=_FORMATS, default="cloudevents", show_default=True, help="What is sent.")
@click.option("--disabled", is_flag=True, help="Send nothing yet but tests.")
@connected
def create(
    call: Call,
    *,
    name: str,
    target: str,
    patterns: tuple[str, ...],
    min_severity: str | None,
    form: str,
    disabled: bool,
) -> None:
    """Send events to a URL from now on; prints the secret by which the receiver checks them, this once.

    Formats: cloudevents for programs; slack for incoming webhooks of Slack, Mattermost, Rocket.Chat and Discord (its
    address with /slack at the end); teams for the Workflows app of Microsoft Teams.

    Example: shoalctl webhook create ops https://ops.example.com/shoal --type 'rollout.*' --type 'alert.*'
    """
    body = {
        "name": name,
        "url": target,
        "types": list(patterns) or ["*"],
        "min_severity": min_severity,
        "format": form,
        "enabled": not disabled,
    }
    made = call.client.post("/api/v1/webhooks", body)

    def text() -> None:
        if form == "cloudevents":
            click.echo(made["secret"])
            click.echo("This secret is shown only now: the receiver checks signatures with it.", err=True)
        click.echo(f"Try it: shoalctl webhook test {name}", err=True)

    call.show(made, text)


@webhook.command()
@click.argument("name")
@connected
def show(call: Call, *, name: str) -> None:
    """Show one webhook and how it is doing.

    Example: shoalctl webhook show ops
    """
    found = call.client.get(_path(name))
    call.show(found, lambda: _print_webhook(found))


@webhook.command()
@click.argument("name")
@click.option("--to", "target", metavar="URL", help="Send there instead.")
@click.option("--type", "patterns", multiple=True, metavar="TYPE", help=f"{_TYPES_HELP} Replaces the present ones.")
@click.option("--min-severity", type=_ANY_SEVERITY, help="Leave out alerts below this severity.")
@click.option("--format", "form", type=_FORMATS, help="What is sent.")
@click.option("--enable/--disable", "enabled", default=None, help="Send again, or send nothing.")
@connected
def edit(
    call: Call,
    *,
    name: str,
    target: str | None,
    patterns: tuple[str, ...],
    min_severity: str | None,
    form: str | None,
    enabled: bool | None,
) -> None:
    """Change a webhook; what is not named stays.

    Example: shoalctl webhook edit ops --enable
    """
    named = {"url": target, "types": list(patterns) or None, "format": form, "enabled": enabled}
    changes: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if min_severity is not None:
        changes["min_severity"] = None if min_severity == "any" else min_severity
    if not changes:
        raise click.UsageError("say what to change: --to, --type, --min-severity, --format, --enable or --disable")
    etag = call.client.send("GET", _path(name)).headers["etag"]
    found = call.client.request("PATCH", _path(name), body=changes, headers={"if-match": etag})
    call.show(found, lambda: _print_webhook(found))


@webhook.command()
@click.argument("name")
@connected
def delete(call: Call, *, name: str) -> None:
    """Delete a webhook and its log; what still waited is not sent.

    Example: shoalctl webhook delete ops
    """
    call.client.delete(_path(name))
    call.show({"deleted": name}, lambda: print_facts({"deleted": name}))


@webhook.command()
@click.argument("name")
@connected
def rotate(call: Call, *, name: str) -> None:
    """Make a new secret and print it, this once; for a day the old one signs too.

    Example: shoalctl webhook rotate ops
    """
    made = call.client.post(f"{_path(name)}/rotate")

    def text() -> None:
        click.echo(made["secret"])
        click.echo("For a day every event is signed by this secret and by the old one.", err=True)

    call.show(made, text)


@webhook.command()
@click.argument("name")
@connected
def test(call: Call, *, name: str) -> None:
    """Send a test event now and say what came of it; exit code 1 when it was not taken.

    Example: shoalctl webhook test ops
    """
    found = call.client.post(f"{_path(name)}/test")
    call.show(found, lambda: _print_delivery(found))
    if found["state"] != "delivered":
        raise click.exceptions.Exit(ExitCode.FAILED)


@webhook.command()
@click.argument("name")
@click.option("--state", type=_STATES, help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most, the newest first.")
@connected
def deliveries(call: Call, *, name: str, state: str | None, limit: int) -> None:
    """List what was and is to be sent to a webhook, the newest first.

    Example: shoalctl webhook deliveries ops --state failed
    """
    found = list(call.client.items(f"{_path(name)}/deliveries", limit=limit, state=state))
    rows = [
        (d["id"], d["state"], ago(d["at"]), _short(d["type"]), d["subject"], d["attempts"], _latency(d), _answer(d))
        for d in found
    ]
    headers = ("id", "state", "happened", "type", "about", "tries", "took", "answer")
    call.show({"items": found}, lambda: print_table(headers, rows, empty="Nothing was to be sent yet."))


@webhook.command()
@click.argument("name")
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="ID...")
@connected
def redeliver(call: Call, *, name: str, numbers: tuple[int, ...]) -> None:
    """Send events again that were delivered or given up, under the ids that they always had.

    Example: shoalctl webhook redeliver ops 17 18
    """
    done = [call.client.post(f"{_path(name)}/deliveries/{number}/redeliver") for number in numbers]
    rows = [(one["id"], one["state"], _short(one["type"]), one["subject"]) for one in done]
    call.show({"items": done}, lambda: print_table(("id", "state", "type", "about"), rows, empty=""))


def _path(name: str) -> str:
    return f"/api/v1/webhooks/{segment(name)}"


def _state(found: dict[str, Any]) -> str:
    if not found["enabled"]:
        return "disabled"
    return f"failing since {ago(found['failing_since'])}" if found["failing_since"] else "active"


def _print_webhook(found: dict[str, Any]) -> None:
    names = ("name", "url", "types", "format")
    print_facts(
        {name: found[name] for name in names}
        | {
            "min severity": found["min_severity"] or "any",
            "state": _state(found),
            "why": found["disabled_reason"],
            "last delivered": ago(found["delivered_at"]),
            "next try": ago(found["retry_at"]),
            "made": f"{ago(found['created_at'])} by {found['created_by']}",
        }
    )


def _print_delivery(found: dict[str, Any]) -> None:
    print_facts({"state": found["state"], "answer": _answer(found), "took": _latency(found)})
    if found["response_head"]:
        click.echo()
        rows = [(line,) for line in found["response_head"].splitlines()]
        print_table(("what the receiver said",), rows, empty="")


def _answer(found: dict[str, Any]) -> str:
    return plain(found["error"] or found["status"])


def _latency(found: dict[str, Any]) -> str:
    return NOTHING if found["latency_ms"] is None else f"{found['latency_ms']} ms"


def _short(name: str) -> str:
    return name.removeprefix("dev.shoal.").removesuffix(".v1")
