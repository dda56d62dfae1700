"""`shoalctl contract`: what the values of a model's features must be, and how often the fleet breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_protocol.errors import ContentError
from shoal_server.ctl.client import segment
from shoal_server.ctl.errors import ExitCode, FileError
from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import print_table
from shoal_server.ctl.program import Call, connected

if TYPE_CHECKING:
    from shoal_protocol.bundle.contract import Rule
    from shoal_server.statistics.contract_check import Finding

_FILE = click.Path(path_type=Path)
_MOST_NAMED = 3


def _read(path: Path) -> tuple[dict[str, Any], tuple[Rule, ...]]:
    """Return a contract as it is written, and its rules; raises `FileError`."""
    from shoal_protocol.bundle.contract import parse_contract  # noqa: PLC0415 - numpy, which others needn't load
    from shoal_server.ctl.arguments import read_document  # noqa: PLC0415 - YAML, likewise

    document = read_document(path, like="fields: {age: {range: [0, 120]}}")
    try:
        return document, parse_contract(document)
    except ContentError as error:
        raise FileError(f"{path}: {error.message}", hint=error.hint) from error


@click.group()
def contract() -> None:
    """See what values must be, and who breaks it."""


@contract.command()
@click.argument("slot", required=False)
@click.option(
    "--hours", type=click.FloatRange(0, 168, min_open=True), default=1.0, show_default=True, help="So far back."
)
@connected
def show(call: Call, *, slot: str | None, hours: float) -> None:
    """Show each rule of the bundles that ran: rows checked, rows that broke it, and which devices sent most of them.

    Example: shoalctl contract show quality --hours 24
    """
    asked: dict[str, Any] = {"hours": hours} | ({} if slot is None else {"slot": slot})
    found = call.client.get("/api/v1/contracts", **asked)
    call.show(found, lambda: _print(call, found["items"]))


@contract.command()
@click.argument("file", type=_FILE)
@click.argument("rules", type=_FILE)
@connected
def check(call: Call, *, file: Path, rules: Path) -> ExitCode:
    """Hold a file of rows (CSV, npz, Parquet) against a contract (YAML); needs no server.

    Exit codes: 0 every rule is kept, 3 one is broken, 2 a file can't be read.

    Example: shoalctl contract check today.csv contract.yaml
    """
    from shoal_server.ctl import sample_files  # noqa: PLC0415 - numpy, which others needn't load
    from shoal_server.statistics.contract_check import check_columns  # noqa: PLC0415 - likewise

    _, agreed = _read(rules)
    found = check_columns(agreed, sample_files.typed_columns(file))
    broken = [one for one in found if one.is_broken]
    call.show({"verdict": "broken" if broken else "kept", "rules": [_json(one) for one in found]}, lambda: _told(found))
    return ExitCode.DRIFT if broken else ExitCode.OK


@contract.command("set")
@click.argument("model")
@click.argument("rules", type=_FILE)
@connected
def set_rules(call: Call, *, model: str, rules: Path) -> None:
    """Set the contract of a model at the server, from a YAML file: its devices count it within a minute.

    It adds to what the bundles promise themselves, for every version, and only counts: bundles say what is refused.

    Example: shoalctl contract set quality contract.yaml
    """
    document, _ = _read(rules)
    found = call.client.put(f"/api/v1/contracts/{segment(model)}", document)
    call.show(found, lambda: _told_set(model, found["rules"]))


@contract.command()
@click.argument("model")
@connected
def get(call: Call, *, model: str) -> None:
    """Write the contract that is set for a model at the server, as YAML.

    Example: shoalctl contract get quality > contract.yaml
    """
    found = call.client.get(f"/api/v1/contracts/{segment(model)}")
    call.show(found, lambda: click.echo(_yaml(found["contract"]), nl=False))


@contract.command()
@click.argument("model")
@connected
def clear(call: Call, *, model: str) -> None:
    """Take the contract of a model at the server away; what its bundles promise stays.

    Example: shoalctl contract clear quality
    """
    found = call.client.delete(f"/api/v1/contracts/{segment(model)}")
    call.show(found, lambda: click.echo(f"{model} has no contract at the server any more."))


@contract.command()
@click.argument("model", metavar="MODEL[:VERSION]")
@connected
def derive(call: Call, *, model: str) -> None:
    """Write a contract from what a version's training data looked like, as YAML: look it through before you set it.

    Example: shoalctl contract derive quality > contract.yaml
    """
    name, _, version = model.partition(":")
    asked = {"version": version} if version else {}
    found = call.client.get(f"/api/v1/contracts/{segment(name)}/derived", **asked)
    call.show(found, lambda: click.echo(_yaml(found), nl=False))


def _yaml(document: dict[str, Any]) -> str:
    import yaml  # noqa: PLC0415 - 20 ms, for these commands only

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None))


def _told_set(model: str, rules: list[str]) -> None:
    for rule in rules:
        click.echo(f"  {rule}")
    number = "1 rule is" if len(rules) == 1 else f"{len(rules)} rules are"
    click.echo(f"{model}: {number} set. See who breaks them: shoalctl contract show")


def _json(one: Finding) -> dict[str, Any]:
    return {
        "rule": one.rule.words,
        "field": one.rule.field,
        "check": one.rule.check,
        "tolerate": one.rule.tolerate,
        "rows": one.rows,
        "violations": one.violations,
        "broken": one.is_broken,
        "first_rows": list(one.first),
        "example": one.example,
    }


def _told(found: list[Finding]) -> None:
    rows = [
        (
            one.rule.words,
            "BROKEN" if one.is_broken else "kept",
            f"{one.violations} of {one.rows}" if one.rows else "no such column",
            ", ".join(map(str, one.first)),
            one.example,
        )
        for one in found
    ]
    print_table(
        ("rule", "verdict", "rows that break it", "first rows", "example"), rows, empty="The contract is empty."
    )


def _print(call: Call, items: list[dict[str, Any]]) -> None:
    names = BundleNames(call.client)
    rows = [
        (
            one["slot"],
            names.of(one["digest"]),
            rule["rule"],
            "BROKEN" if rule["broken"] else "kept" if rule["rows"] else "not counted yet",
            f"{rule['violations']} of {rule['rows']} ({100 * rule['violations'] / rule['rows']:.2g} %)"
            if rule["rows"]
            else "",
            rule["action"],
            rule.get("source", "bundle"),
            ", ".join(f"{who['device']} ({who['violations']})" for who in rule["devices"][:_MOST_NAMED]),
        )
        for one in items
        for rule in one["rules"]
    ]
    empty = "No bundle with a contract has sent windows: shoalctl contract set MODEL contract.yaml"
    print_table(
        ("slot", "bundle", "rule", "verdict", "rows that broke it", "action", "set by", "most from"), rows, empty=empty
    )
