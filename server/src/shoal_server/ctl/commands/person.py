"""`shoalctl person`: who may log in to the dashboard with a password, and as what."""

from __future__ import annotations

import secrets
import string
import sys

import click

from shoal_protocol.errors import CallerError
from shoal_server.ctl.client import segment
from shoal_server.ctl.output import ago, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_ROLES = click.Choice(["viewer", "operator", "releaser", "admin"])
_LETTERS = string.ascii_lowercase + string.digits
_GROUPS, _GROUP = 4, 6
"""24 letters and digits: 124 bits, in groups that can be read out."""


@click.group()
def person() -> None:
    """Let people log in to the dashboard, and end that."""


@person.command()
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True, help="What they may do.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of making one.")
@connected
def create(call: Call, *, name: str, role: str, password_stdin: bool) -> None:
    """Add somebody, with a password that is made here and printed this once.

    Example: shoalctl person create olga --role operator
    """
    given = _read_password() if password_stdin else None
    password = given or "-".join("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    made = call.client.post("/api/v1/people", {"name": name, "role": role, "password": password})
    told = {} if given else {"password": password}
    call.show({**made, **told}, lambda: print_facts({"name": made["name"], "role": made["role"], **told}))


@person.command("list")
@connected
def list_people(call: Call) -> None:
    """List who can log in.

    Example: shoalctl person list
    """
    found = list(call.client.items("/api/v1/people"))
    rows = [(one["name"], one["role"], ago(one["created_at"])) for one in found]
    call.show({"items": found}, lambda: print_table(("name", "role", "since"), rows, empty="Nobody can log in."))


@person.command()
@click.argument("name")
@connected
def delete(call: Call, *, name: str) -> None:
    """Remove somebody: their sessions, and the API tokens that they made, end at once.

    Example: shoalctl person delete olga
    """
    call.client.delete(f"/api/v1/people/{segment(name)}")
    call.show({"deleted": name}, lambda: print_facts({"deleted": name}))


def _read_password() -> str:
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise CallerError("no password came on standard input", hint="write it there as one line")
    return password
