"""`shoalctl audit`: who changed what, and the proof that no row was removed or edited."""

from __future__ import annotations

import click

from shoal_server.ctl.errors import ExitCode
from shoal_server.ctl.output import ago, print_facts, print_table
from shoal_server.ctl.program import Call, connected


@click.group()
def audit() -> None:
    """See who changed what, and prove that nothing was removed."""


@audit.command("list")
@click.option("--subject", help="Only changes of this, such as device:cam-7.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most, the newest first.")
@connected
def list_rows(call: Call, *, subject: str | None, limit: int) -> None:
    """List changes, the newest first."""
    found = list(call.client.items("/api/v1/audit", limit=limit, subject=subject))
    rows = [(row["id"], ago(row["at"]), row["actor"], row["action"], row["subject"]) for row in found]
    headers = ("row", "when", "who", "did", "to")
    call.show({"items": found}, lambda: print_table(headers, rows, empty="Nothing was changed yet."))


@audit.command()
@click.option("--head", help="A head that was kept elsewhere: it must still be the newest row's.")
@connected
def verify(call: Call, *, head: str | None) -> None:
    """Recompute the whole chain of hashes; exit code 1 when it is broken."""
    found = call.client.get("/api/v1/audit/verification")
    call.show(found, lambda: print_facts(found))
    if not found["intact"] or (head is not None and head != found["head"]):
        raise click.exceptions.Exit(ExitCode.FAILED)
