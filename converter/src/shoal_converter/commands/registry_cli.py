"""The commands that bring a bundle to a registry and back."""

from __future__ import annotations

from pathlib import Path

import click

from shoal_converter.commands.arguments import (
    json_option,
    oms_key_option,
    open_bundle,
    opened_release_key,
    passphrase_option,
    root_option,
    token_file_option,
    url_option,
    with_oms,
)
from shoal_converter.settings import load_settings
from shoal_converter.terminal import Terminal


@click.command(short_help="Upload a bundle to a registry.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key", metavar="KEY", envvar="SHOAL_KEY", help="Release key: a path, awskms:… gcpkms:… azurekms:… hsm:… hv:…"
)
@root_option
@passphrase_option
@oms_key_option
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and whether it would be refused; send nothing.")
@url_option
@token_file_option
@json_option
def push(  # noqa: PLR0917 - click passes by name
    bundle: Path,
    key: str | None,
    root: Path | None,
    passphrase_file: Path | None,
    oms_key: str | None,
    url: str | None,
    token_file: Path | None,
    *,
    dry_run: bool,
    json_wanted: bool,
) -> None:
    """Upload a bundle to a Shoal server or any OCI registry; what is already there is not sent again.

    With --key the release is signed here, where the server can't: `shoal-convert keys --help`.

    \b
    SHOAL_TOKEN=... shoal-convert push quality-1.4.0.tar --url http://127.0.0.1:8080
    shoal-convert push quality-1.4.0.tar --key shoal-keys/release-1.pem
    shoal-convert push quality-1.4.0.tar --dry-run
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.commands.push import run  # noqa: PLC0415 - keeps --help quick

    opened, settings = open_bundle(bundle), load_settings(url=url, token_file=token_file)
    release_key = opened_release_key(key, root, passphrase_file)
    opened = with_oms(opened, oms_key, passphrase_file)
    run(Terminal(json_wanted=json_wanted), opened, settings, key=release_key, dry_run=dry_run)


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
    """Download a bundle: name:1.4.0, name@champion or name@sha256:…, and check every digest.

    The statements about it come with it, such as the parity report that `check` looks at.

    \b
    shoal-convert pull quality@champion -o quality.tar
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.oci_layout import check_free  # noqa: PLC0415 - keeps --help quick
    from shoal_converter.pushing import pull as fetch  # noqa: PLC0415 - as above
    from shoal_protocol.refs import parse_ref  # noqa: PLC0415 - as above

    terminal, settings = Terminal(json_wanted=json_wanted), load_settings(url=url, token_file=token_file)
    named = parse_ref(ref)
    if output is None and named.version is not None:
        output = Path(f"{named.name}-{named.version}.tar")
    if output is not None:
        check_free(output, force=force)  # before anything travels
    with terminal.growing_bar(f"pull {ref}") as count:
        bundle = fetch(
            ref,
            settings.url,
            token=settings.token,
            ca=settings.ca,
            progress=terminal.progress,
            bytes_received=count,
        )
    path = bundle.write(output or Path(f"{bundle.info.name}-{bundle.info.version}.tar"), force=force)
    if json_wanted:
        told = {"ref": str(bundle.ref), "digest": bundle.digest, "path": str(path)}
        terminal.json({**told, "statements": sorted(bundle.statements)})
    else:
        stated = ", ".join(sorted(bundle.statements)) or "none"
        rows = [("pulled", str(bundle.ref)), ("digest", bundle.digest), ("statements", stated), ("path", str(path))]
        terminal.facts(rows)
