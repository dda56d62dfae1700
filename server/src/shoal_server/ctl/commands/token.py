"""`shoalctl token`: join tokens, by which devices enrol, and API tokens, by which programs call."""

from __future__ import annotations

import click

from shoal_server.ctl.arguments import parse_labels, parse_seconds
from shoal_server.ctl.client import segment
from shoal_server.ctl.output import ago, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_ROLES = click.Choice(["viewer", "operator", "releaser", "admin"])


@click.group()
def token() -> None:
    """Make join tokens for devices and API tokens for programs."""


@token.command()
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, help="Devices that may join with it.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label that each of these devices gets.")
@click.option(
    "--expires", metavar="TIME", default="24h", show_default=True, help="How long it is good for: 30m, 24h, 7d."
)
@click.option("--pending", is_flag=True, help="Devices wait until an operator accepts them.")
@click.option("--role", type=_ROLES, help="Make an API token with this role instead (needs --name).")
@click.option("--name", help="Name of the API token.")
@connected
def create(
    call: Call,
    *,
    uses: int,
    labels: tuple[str, ...],
    expires: str,
    pending: bool,
    role: str | None,
    name: str | None,
) -> None:
    """Make a token for devices to join with; the line printed is what to paste on the device.

    With --role and --name: an API token for a pipeline or a person's command line. It is shown this once.
    """
    if role or name:
        if not (role and name):
            raise click.UsageError("an API token needs both --role and --name")
        _create_api_token(call, name=name, role=role, expires=expires)
        return
    body = {"uses": uses, "labels": parse_labels(labels), "expires_in_s": parse_seconds(expires)}
    if pending:
        body["preauthorised"] = False
    made = call.client.post("/api/v1/join-tokens", body)

    def text() -> None:
        click.echo(made["join"])
        devices = "one device" if uses == 1 else f"{uses} devices"
        click.echo(
            f"Paste this line on the device. It is good for {devices} and expires {ago(made['expires_at'])}.", err=True
        )

    call.show(made, text)


def _create_api_token(call: Call, *, name: str, role: str, expires: str) -> None:
    chosen = click.get_current_context().get_parameter_source("expires")
    body: dict[str, object] = {"name": name, "role": role}
    if chosen is click.core.ParameterSource.COMMANDLINE:
        body["expires_in_s"] = parse_seconds(expires)
    made = call.client.post("/api/v1/tokens", body)
    call.show(made, lambda: click.echo(made["token"]))


@token.command("list")
@connected
def list_tokens(call: Call) -> None:
    """List API tokens: who made them, when they were last used."""
    found = list(call.client.items("/api/v1/tokens"))
    rows = [
        (t["name"], t["role"], t["prefix"] + "…", t["created_by"], ago(t["last_used_at"]), ago(t["expires_at"]))
        for t in found
    ]
    headers = ("name", "role", "token", "made by", "last used", "expires")
    empty = "No API tokens. Make one: shoalctl token create --role releaser --name ci"
    call.show({"items": found}, lambda: print_table(headers, rows, empty=empty))


@token.command()
@click.argument("name")
@connected
def delete(call: Call, *, name: str) -> None:
    """Make an API token invalid at once."""
    call.client.delete(f"/api/v1/tokens/{segment(name)}")
    call.show({"deleted": name}, lambda: print_facts({"deleted": name}))
