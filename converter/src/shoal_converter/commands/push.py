"""`shoal-convert push`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal_converter.bundle import OMS, Bundle
from shoal_converter.pushing import Plan, Pushed, plan, push
from shoal_converter.registry import Registry
from shoal_converter.settings import Settings
from shoal_converter.terminal import Terminal

if TYPE_CHECKING:
    from shoal_converter.signing.pipeline import ReleaseKey


def run(terminal: Terminal, bundle: Bundle, settings: Settings, *, key: ReleaseKey | None, dry_run: bool) -> None:
    """Push a bundle and say what was sent, or only ask what would be."""
    with Registry(settings.url, token=settings.token, ca=settings.ca) as registry:
        if dry_run:
            if key is not None:
                key.check(registry)
            _tell_plan(terminal, bundle, plan(bundle, registry))
            return
        with terminal.bar(f"push {bundle.ref}", bundle.size_bytes) as count:
            pushed = push(bundle, registry, progress=terminal.progress, bytes_sent=count, key=key)
    _tell_pushed(terminal, pushed)


def _tell_plan(terminal: Terminal, bundle: Bundle, found: Plan) -> None:
    if terminal.json_wanted:
        terminal.json({"dry_run": True, **found.as_json(), "statements": sorted(bundle.statements)})
        return
    rows = [
        *((path, f"{size:,}", "would be sent") for path, size in found.missing),
        *((path, f"{size:,}", "already there") for path, size in found.already_there),
        *(
            (
                f"statement {name}",
                f"{len(raw):,}",
                "would be sent" if name in found.statements.sent else "already there",
            )
            for name, raw in sorted(bundle.statements.items())
        ),
    ]
    terminal.table(("FILE", "BYTES", ""), rows)
    known = "this very bundle is there already" if found.released else "a new version"
    terminal.facts(
        [
            ("would push", f"{found.ref} to {found.url}: {known}"),
            ("digest", found.digest),
            ("would send", f"{found.missing_bytes:,} bytes, {len(found.already_there)} files already there"),
            ("OMS signature", "beside it" if OMS in bundle.statements else "none"),
            ("dry run", "nothing was sent"),
        ]
    )


def _tell_pushed(terminal: Terminal, pushed: Pushed) -> None:
    if terminal.json_wanted:
        terminal.json(pushed.as_json())
        return
    nobody = "nobody: this registry keeps no signed list, and Shoal's devices install only what is on one"
    signed = f"{pushed.signed_by} {', '.join(key_id[:12] for key_id in pushed.key_ids)}"
    terminal.facts(
        [
            ("pushed", f"{pushed.ref} to {pushed.url}"),
            ("digest", pushed.digest),
            ("sent", f"{pushed.sent_bytes:,} bytes, {pushed.already_there} files already there"),
            ("signed by", signed if pushed.signed_by else nobody),
        ]
    )
