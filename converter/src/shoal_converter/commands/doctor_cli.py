"""``shoal-convert doctor``: names, options and help; what is looked at is `doctor`'s."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal_converter.commands.arguments import (
    json_option,
    opened_release_key,
    passphrase_option,
    root_option,
    token_file_option,
    url_option,
)
from shoal_converter.errors import EXIT_FAILED
from shoal_converter.settings import load_settings
from shoal_converter.terminal import Terminal

if TYPE_CHECKING:
    from shoal_converter.doctor import Finding

_SHOWN = {"ok": "ok", "note": "note", "wrong": "WRONG", "skipped": "-"}


@click.command(short_help="Look at everything that packing and pushing depend on.")
@click.option("--offline", is_flag=True, help="Ask no registry.")
@click.option("--key", metavar="KEY", envvar="SHOAL_KEY", help="Release key to try: a path, awskms:… gcpkms:…")
@root_option
@passphrase_option
@url_option
@token_file_option
@json_option
def doctor(
    key: str | None,
    root: Path | None,
    passphrase_file: Path | None,
    url: str | None,
    token_file: Path | None,
    *,
    offline: bool,
    json_wanted: bool,
) -> None:
    """Look at everything that packing and pushing depend on, and say how to cure what is wrong.

    Libraries and extras, a real conversion, the child process for pickles, the registry, the token, the release key.
    Changes nothing. Exit code 1 when something is wrong.

    \b
    shoal-convert doctor
    shoal-convert doctor --url https://shoal.example --key shoal-keys/release-1.pem
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.doctor import examine_access, examine_installation  # noqa: PLC0415 - keeps --help quick

    settings = None if offline else load_settings(url=url, token_file=token_file)
    findings = [
        *examine_installation(),
        *examine_access(settings, open_key=lambda: opened_release_key(key, root, passphrase_file)),
    ]
    _tell(Terminal(json_wanted=json_wanted), findings)
    if any(finding.state == "wrong" for finding in findings):
        raise click.exceptions.Exit(EXIT_FAILED)


def _tell(terminal: Terminal, findings: Iterable[Finding]) -> None:
    if terminal.json_wanted:
        listed = [finding.as_json() for finding in findings]
        terminal.json({"ok": all(entry["state"] != "wrong" for entry in listed), "findings": listed})
        return
    rows = []
    for finding in findings:
        rows.append((finding.check, _SHOWN[finding.state], finding.found))
        if finding.cure and finding.state != "ok":
            rows.append(("", "", f"-> {finding.cure}"))
    terminal.table(("CHECK", "", "FOUND"), rows)
