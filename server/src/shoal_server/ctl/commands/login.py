"""`shoalctl login`: prove the credentials once, then remember them."""

from __future__ import annotations

import platform
import secrets
import sys
from typing import Any

import click

from shoal_protocol.errors import CallerError
from shoal_server.ctl.program import Call, connected
from shoal_server.ctl.settings import Settings, normal_url, settings_path, write_settings


@click.command()
@click.argument("address", metavar="URL", required=False)
@click.option("--user", metavar="NAME", help="Log in as a person: asks for the password and makes a token from it.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
@connected
def login(call: Call, *, address: str | None, user: str | None, password_stdin: bool) -> None:
    """Remember the server at URL and the credentials for it.

    With --token (or --token-file) that API token is kept. Without, an admin's password is asked for (--user, default
    admin) and an API token for this machine is made with it.
    """
    known = call.settings
    given = Settings(url=normal_url(address) if address else known.url, token=_explicit_token(call), ca=known.ca)
    if given.token is None:
        name = user or "admin"
        password = _password(name, from_stdin=password_stdin)
        given = Settings(url=given.url, ca=given.ca, token=_token_for(call, given, name=name, password=password))
    with call.client_for(given) as client:
        person: dict[str, Any] = client.get("/api/v1/whoami")
    path = settings_path(call.program.environment)
    write_settings(path, given)
    answer = {"url": given.url, "name": person["name"], "kind": person["kind"], "role": person["role"]}
    call.show(
        answer, lambda: click.echo(f"Logged in to {given.url} as {person['name']} ({person['role']}); kept in {path}")
    )


def _explicit_token(call: Call) -> str | None:
    """Return the token of the flags or the environment, not the one that is remembered already."""
    if call.flags.token is None and call.flags.token_file is None:
        names = call.program.environment
        if not names.get("SHOAL_TOKEN") and not names.get("SHOAL_TOKEN_FILE"):
            return None
    return call.settings.token


def _password(name: str, *, from_stdin: bool) -> str:
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
        if not given:
            raise CallerError("no password came on standard input", hint="write it there as one line")
        return given
    answer: str = click.prompt(f"Password of {name}", hide_input=True, err=True)
    return answer


def _token_for(call: Call, settings: Settings, *, name: str, password: str) -> str:
    """Log in with a password, make an API token for this machine, log out."""
    own_page = {"origin": settings.url}  # the server takes a session's changes from its own pages only
    machine = "".join(c if c.isalnum() or c in "._-" else "-" for c in platform.node()) or "machine"
    with call.client_for(settings) as client:
        client.request("POST", "/api/v1/login", body={"name": name, "password": password}, headers=own_page)
        role = client.get("/api/v1/whoami")["role"]
        wanted = {"name": f"shoalctl-{machine[:40]}-{secrets.token_hex(3)}", "role": role}
        made = client.request("POST", "/api/v1/tokens", body=wanted, headers=own_page)
        client.request("POST", "/api/v1/logout", headers=own_page)
    return str(made["token"])
