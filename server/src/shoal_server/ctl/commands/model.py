"""`shoalctl model`: what was pushed, which version an alias means, what must not be installed."""

from __future__ import annotations

from typing import Any

import click

from shoal_protocol.errors import CallerError
from shoal_protocol.refs import parse_ref
from shoal_server.ctl.client import Client, segment
from shoal_server.ctl.output import ago, plain, print_facts, print_table, short_digest
from shoal_server.ctl.program import Call, connected


@click.group()
def model() -> None:
    """See models and versions, move aliases, deny versions."""


@model.command("list")
@click.option("-q", "--search", "text", help="Only models with this in name, version, alias, framework or task.")
@connected
def list_models(call: Call, *, text: str | None) -> None:
    """List models with their newest version and aliases.

    Example: shoalctl model list --search champion
    """
    found = list(call.client.items("/api/v1/models", q=text))
    rows = [
        (
            m["name"],
            m["newest"]["version"],
            {a["alias"]: a["version"] for a in m["aliases"]},
            m["newest"]["task"],
            ago(m["newest"]["created_at"]),
        )
        for m in found
    ]
    empty = "No model matches." if text else "No models yet. Push one: shoal-convert push BUNDLE"
    headers = ("model", "newest", "aliases", "task", "pushed")
    call.show({"items": found}, lambda: print_table(headers, rows, empty=empty))


@model.command()
@click.argument("ref", metavar="NAME[:VERSION]")
@connected
def show(call: Call, *, ref: str) -> None:
    """Show a model with its versions, or what is inside one version (name:1.4.0 or name@champion)."""
    if ":" not in ref and "@" not in ref:
        found = call.client.get(f"/api/v1/models/{segment(ref)}")
        call.show(found, lambda: _print_model(found))
        return
    version = version_of(call.client, ref)
    call.show(version, lambda: _print_version(version))


@model.command()
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@click.option("--delete", is_flag=True, help="Take the alias away.")
@connected
def alias(call: Call, *, name: str, alias: str | None, version: str | None, delete: bool) -> None:
    """List a model's aliases, show one with its history, or point ALIAS at VERSION.

    Moving an alias never changes a device; a rollout does that.
    """
    path = f"/api/v1/models/{segment(name)}/aliases"
    if alias is None:
        found = list(call.client.items(path))
        rows = [(a["alias"], a["version"], ago(a["set_at"]), a["set_by"]) for a in found]
        empty = f"No alias yet. Set one: shoalctl model alias {name} champion VERSION"
        call.show({"items": found}, lambda: print_table(("alias", "version", "since", "by"), rows, empty=empty))
    elif delete:
        call.client.delete(f"{path}/{segment(alias)}")
        call.show({"deleted": alias}, lambda: print_facts({"deleted": alias}))
    elif version is None:
        one = call.client.get(f"{path}/{segment(alias)}")
        moves = [(h["version"], ago(h["at"]), h["by"]) for h in one["history"]]
        call.show(one, lambda: print_table(("version", "since", "by"), moves, empty="It has no history."))
    else:
        answer = call.client.put(f"{path}/{segment(alias)}", {"version": version})
        call.show(answer, lambda: print_facts({"alias": f"{name}@{alias}", "version": answer["version"]}))


@model.command()
@click.argument("ref", metavar="NAME:VERSION")
@connected
def deny(call: Call, *, ref: str) -> None:
    """Let no device install a version or return to it; where it runs, it runs on and is reported.

    In development trust the server signs that at once. With release keys it bars new rollouts here, and devices hear
    of it when the release key signs it: shoal-convert keys revoke NAME:VERSION.
    """
    _set_state(call, ref, "deny")


@model.command()
@click.argument("ref", metavar="NAME:VERSION")
@connected
def allow(call: Call, *, ref: str) -> None:
    """Lift a version from the deny list."""
    _set_state(call, ref, "allow")


@model.command()
@click.argument("ref", metavar="NAME:VERSION")
@click.option("--yes", is_flag=True, help="Don't ask.")
@connected
def delete(call: Call, *, ref: str, yes: bool) -> None:
    """Delete a version that no device, rollout or alias needs; refused with the names of those that do.

    Its space is freed by the next garbage collection, after a day. Its name stays taken: only the very same bundle can
    be pushed under it again.

    Example: shoalctl model delete quality:1.0.3
    """
    parsed = parse_ref(ref)
    if not yes:
        click.confirm(f"Delete {ref}?", abort=True, err=True)
    call.client.delete(f"/api/v1/models/{segment(parsed.name)}/versions/{segment(parsed.version or ref)}")
    call.show({"deleted": ref}, lambda: print_facts({"deleted": ref}))


@model.command()
@click.argument("old", metavar="NAME:OLD")
@click.argument("new", metavar="NAME:NEW")
@connected
def diff(call: Call, *, old: str, new: str) -> None:
    """Show what differs between two versions: runtime, inputs, outputs, files, size, parity, cost and origin.

    Example: shoalctl model diff quality:1.3.0 quality@champion
    """
    before, after = version_of(call.client, old), version_of(call.client, new)
    found = call.client.get(
        f"/api/v1/models/{segment(before['model'])}/diff",
        old=before["version"],
        new=after["version"],
        new_model=after["model"],
    )
    rows = [(change["where"], change["before"], change["after"]) for change in found["changes"]]
    headers = ("where", before["ref"], after["ref"])
    call.show(found, lambda: print_table(headers, rows, empty="Nothing differs but the name."))


@model.command()
@click.argument("ref", metavar="NAME:VERSION")
@connected
def lineage(call: Call, *, ref: str) -> None:
    """Show where a version comes from: parents, children, code, data and libraries, as its pipeline stated them.

    Example: shoalctl model lineage quality@champion
    """
    version = version_of(call.client, ref)
    path = f"/api/v1/models/{segment(version['model'])}/versions/{segment(version['version'])}/lineage"
    found = call.client.get(path)
    call.show(found, lambda: _print_lineage(found))


@model.command()
@click.argument("ref", metavar="NAME:VERSION")
@click.option("--reason", help="Why; people who plan a rollout of it read this.")
@click.option("--undo", is_flag=True, help="It is fine again.")
@connected
def deprecate(call: Call, *, ref: str, reason: str | None, undo: bool) -> None:
    """Say why no new rollout should take a version; where it runs it goes on, and nothing is refused.

    Example: shoalctl model deprecate quality:1.0.3 --reason "trained without the new line"
    """
    if undo == bool(reason):
        raise CallerError("give either --reason TEXT or --undo")
    parsed = parse_ref(ref)
    path = f"/api/v1/models/{segment(parsed.name)}/versions/{segment(parsed.version or ref)}/deprecation"
    answer = call.client.put(path, {"reason": reason or ""})
    call.show(answer, lambda: print_facts({"version": answer["ref"], "deprecated": answer["deprecated"] or "no"}))


def version_of(client: Client, ref: str) -> dict[str, Any]:
    """Return one version with what is inside; raises `CallerError` for a text that is no reference."""
    parsed = parse_ref(ref)
    base = f"/api/v1/models/{segment(parsed.name)}"
    name = parsed.version
    if parsed.alias:
        name = client.get(f"{base}/aliases/{segment(parsed.alias)}")["version"]
    elif parsed.digest:
        name = next((v["version"] for v in client.items(f"{base}/versions") if v["digest"] == parsed.digest), None)
    found: dict[str, Any] = client.get(f"{base}/versions/{segment(name or str(parsed.digest))}")
    return found


_NEEDS_SHOWN = 10
_SHOWN = {"version": "ref", "state": "state", "advice": "advice"}


def _set_state(call: Call, ref: str, verb: str) -> None:
    parsed = parse_ref(ref)
    path = f"/api/v1/models/{segment(parsed.name)}/versions/{segment(parsed.version or ref)}/{verb}"
    answer = call.client.post(path)
    shown = {name: answer[key] for name, key in _SHOWN.items() if key in answer}
    call.show(answer, lambda: print_facts(shown))


def _print_model(found: dict[str, Any]) -> None:
    aliases: dict[str, list[str]] = {}
    for one in found["aliases"]:
        aliases.setdefault(one["version"], []).append(one["alias"])
    rows = [
        (
            v["version"],
            aliases.get(v["version"], []),
            f"{v['state']}, deprecated" if v.get("deprecated") else v["state"],
            v["framework"],
            f"{v['size'] / 1000:.0f} kB",
            ago(v["created_at"]),
            v["created_by"],
            short_digest(v["digest"]),
        )
        for v in found["versions"]
    ]
    headers = ("version", "aliases", "state", "framework", "size", "pushed", "by", "digest")
    print_table(headers, rows, empty="It has no versions.")


def _print_version(found: dict[str, Any]) -> None:
    facts = {name: found[name] for name in ("ref", "digest", "state", "task", "framework", "size", "created_by")}
    needed, count = found.get("needed_by", [])[:_NEEDS_SHOWN], found.get("needed_by_count", 0)
    more = [f"and {count - len(needed)} more"] if count > len(needed) else []
    facts |= {"deprecated": found["deprecated"]} if found.get("deprecated") else {}
    print_facts({**facts, "needed by": ", ".join([*needed, *more]) or "nobody"})
    fields = [(f["name"], "input", f["dtype"], f.get("categories") or "") for f in found["schema"]["inputs"]]
    fields += [
        (f["name"], f"output, {f['role']}", f["dtype"], f.get("classes") or "") for f in found["schema"]["outputs"]
    ]
    click.echo()
    print_table(("name", "kind", "type", "values"), fields, empty="It has no inputs.")


def _print_lineage(found: dict[str, Any]) -> None:
    line = [found["ref"], *(one["ref"] or short_digest(one["digest"]) for one in found["ancestors"])]
    source, parity, cost = found["source"] or {}, found["parity"], found["cost"]
    code = source.get("code")
    dirty = " with changes that were not committed" if code and code["dirty"] else ""
    print_facts(
        {
            "made from": " <- ".join(line),
            "made into": [one["ref"] for one in found["children"]],
            "packed": ago(source.get("finished_at")),
            "code": f"{code['commit']}{dirty} {code['uri'] or ''}".rstrip() if code else None,
            **{f"input {one['name']}": one["digest"] for one in source.get("inputs", ())},
            "parameters": source.get("parameters"),
            "libraries": source.get("packages"),
            "python": source.get("python"),
            "parity": f"{plain(parity['rows'])} rows, {plain(parity['label_flips'])} label flips" if parity else None,
            "one row": f"{plain(cost['p50_ms'])} ms (p95 {plain(cost['p95_ms'])} ms)" if cost else None,
        }
    )
