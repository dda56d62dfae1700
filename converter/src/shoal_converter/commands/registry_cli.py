"""The commands that bring a bundle to a registry and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal_converter.commands.arguments import (
    json_option,
    open_bundle,
    opened_release_key,
    token_file_option,
    url_option,
)
from shoal_converter.settings import load_settings
from shoal_converter.terminal import Terminal

if TYPE_CHECKING:
    from shoal_converter.pushing import Pushed


@click.command(short_help="Upload a bundle to a registry.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key", metavar="KEY", envvar="SHOAL_KEY", help="Release key: a path, awskms:… gcpkms:… azurekms:… hsm:… hv:…"
)
@click.option("--root", type=click.Path(path_type=Path), help="The pinned root. Default: root.json beside the key.")
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    envvar="SHOAL_KEY_PASSPHRASE_FILE",
    help="File that holds the key's passphrase.",
)
@url_option
@token_file_option
@json_option
def push(  # noqa: PLR0917 - click passes by name
    bundle: Path,
    key: str | None,
    root: Path | None,
    passphrase_file: Path | None,
    url: str | None,
    token_file: Path | None,
    *,
    json_wanted: bool,
) -> None:
    """Upload a bundle to a Shoal server or any OCI registry; what is already there is not sent again.

    With --key the release is signed here, where the server can't: `shoal-convert keys --help`.

    \b
    SHOAL_TOKEN=... shoal-convert push quality-1.4.0.tar --url http://127.0.0.1:8080
    shoal-convert push quality-1.4.0.tar --key shoal-keys/release-1.pem
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.pushing import push as send  # noqa: PLC0415 - keeps --help quick

    terminal, opened = Terminal(json_wanted=json_wanted), open_bundle(bundle)
    settings = load_settings(url=url, token_file=token_file)
    release_key = opened_release_key(key, root, passphrase_file)
    with terminal.bar(f"push {opened.ref}", opened.size_bytes) as count:
        pushed = send(
            opened,
            settings.url,
            token=settings.token,
            ca=settings.ca,
            progress=terminal.progress,
            bytes_sent=count,
            key=release_key,
        )
    _tell_pushed(terminal, pushed)


@click.command(short_help="Download a bundle and check every digest.")
@click.argument("ref")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder or .tar. Default: NAME-VERSION.tar.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
@url_option
@token_file_option
@json_option
def pull(
    ref: str, output: Path | None, url: str | None, token_file: Path | None, *, force: bool, json_wanted: bool
) -> None:
    """Download a bundle: name:1.4.0, name@champion or name@sha256:…, and check every digest."""
    from shoal_converter.pushing import pull as fetch  # noqa: PLC0415 - keeps --help quick

    terminal, settings = Terminal(json_wanted=json_wanted), load_settings(url=url, token_file=token_file)
    bundle = fetch(ref, settings.url, token=settings.token, ca=settings.ca, progress=terminal.progress)
    path = bundle.write(output or Path(f"{bundle.info.name}-{bundle.info.version}.tar"), force=force)
    if json_wanted:
        terminal.json({"ref": str(bundle.ref), "digest": bundle.digest, "path": str(path)})
    else:
        terminal.facts([("pulled", str(bundle.ref)), ("digest", bundle.digest), ("path", str(path))])


def _tell_pushed(terminal: Terminal, pushed: Pushed) -> None:
    if terminal.json_wanted:
        terminal.json(pushed.as_json())
        return
    terminal.facts(
        [
            ("pushed", f"{pushed.ref} to {pushed.url}"),
            ("digest", pushed.digest),
            ("sent", f"{pushed.sent_bytes:,} bytes, {pushed.already_there} files already there"),
            (
                "signed by",
                f"{pushed.signed_by} {', '.join(k[:12] for k in pushed.key_ids)}"
                if pushed.signed_by
                else "nobody: this registry keeps no signed list, and Shoal's devices install only what is on one",
            ),
        ]
    )
