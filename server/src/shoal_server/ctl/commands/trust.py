"""`shoalctl trust`: who may sign what on this server, and until when."""

from __future__ import annotations

from typing import Any

import click

from shoal_server.ctl.output import ago, print_facts
from shoal_server.ctl.program import Call, connected


@click.group()
def trust() -> None:
    """See who can make devices install a bundle: this server alone, or a release key kept elsewhere."""


@trust.command()
@connected
def show(call: Call) -> None:
    """Show the trust mode, the keys, and when the signed list and the root expire.

    Keys are made and changed with shoal-convert keys, never here: the server must not see them.
    """
    found = call.client.get("/api/v1/trust")
    call.show(found, lambda: _print(found))


def _print(found: dict[str, Any]) -> None:
    root, listed, release = found["root"], found["list"], found["release"]
    facts = {
        "mode": found["mode"],
        "meaning": found["meaning"],
        "root": f"version {root['version']}, {root['threshold']} of {len(root['keys'])} keys",
        "root keys": [key[:12] for key in root["keys"]],
        "root expires": ago(root["expires_at"]),
        "release keys": [key[:12] for key in release["keys"]],
        "signed list": f"version {listed['version']}, {listed['releases']} releases, {len(listed['denied'])} denied",
        "list expires": ago(listed["expires_at"]),
    }
    print_facts(facts)
    for line in found["warnings"]:
        click.echo(f"warning: {line}", err=True)
