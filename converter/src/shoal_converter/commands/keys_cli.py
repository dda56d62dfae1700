"""The command group ``shoal-convert keys``: names, options and help. What they do is `keys`'s.

That module is heavy (cryptography, TUF), so it is imported when a command runs and handed to it as `act`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from shoal_converter.terminal import Terminal

if TYPE_CHECKING:
    from shoal_converter.commands.keys import Where

_PATH = click.Path(path_type=Path)
_key = click.option("--key", metavar="KEY", help="Release key: a path, or awskms:… gcpkms:… azurekms:… hsm:… hv:…")
_export = click.option("--export", type=_PATH, metavar="FILE", help="Write the root down for keys on other machines.")
_passphrase = click.option("--passphrase", "protect", is_flag=True, help="Ask for a passphrase for new key files.")


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options by which all of them say where keys and server are, as one value `where`."""

    @click.option(
        "--dir", "folder", type=_PATH, default=Path("shoal-keys"), show_default=True, help="The folder of keys."
    )
    @click.option("--url", "--server", metavar="URL", help="The server. Default: SHOAL_URL, then the stored login.")
    @click.option("--token-file", type=_PATH, help="File that holds the token. Default: SHOAL_TOKEN.")
    @click.option("--passphrase-file", type=_PATH, help="File that holds the keys' passphrase.")
    @click.option("--json", "json_wanted", is_flag=True, help="Print the result as JSON.")
    def told(
        folder: Path,
        url: str | None,
        token_file: Path | None,
        passphrase_file: Path | None,
        json_wanted: bool,  # noqa: FBT001 - click passes by name
        **arguments: Any,
    ) -> None:
        from shoal_converter.commands import keys as act  # noqa: PLC0415 - see the module's docstring

        where = act.Where(folder, url, token_file, passphrase_file, Terminal(json_wanted=json_wanted))
        command(act, where, **arguments)

    told.__doc__, told.__name__ = command.__doc__, command.__name__
    told.__click_params__ = [*getattr(command, "__click_params__", []), *told.__click_params__]  # type: ignore[attr-defined]
    return told


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Make, use and change the keys that decide what devices install.

    \b
    shoal-convert keys init --dir shoal-keys --url https://shoal.example
    shoal-convert push quality-1.4.0.tar --key shoal-keys/release-1.pem
    """  # noqa: D301 - click needs the character itself


@keys.command()
@click.option("--root-keys", type=click.IntRange(1, 20), default=1, show_default=True, help="How many root keys.")
@click.option("--threshold", type=click.IntRange(1, 20), default=1, show_default=True, help="How many must sign.")
@click.option("--root-key", multiple=True, metavar="KEY", help="A root key that exists, such as awskms:…; repeatable.")
@click.option("--release-key", multiple=True, metavar="KEY", help="A release key that exists; repeatable.")
@_passphrase
@_where
def init(  # noqa: PLR0917 - click passes by name
    act: ModuleType,
    where: Where,
    root_keys: int,
    threshold: int,
    root_key: tuple[str, ...],
    release_key: tuple[str, ...],
    *,
    protect: bool,
) -> None:
    """Make root and release keys; with --url, hand that server's trust to them at once.

    Key files are ECDSA P-256 in PEM, readable by you only.

    \b
    shoal-convert keys init --url https://shoal.example --token-file admin-token
    shoal-convert keys init --root-keys 3 --threshold 2 --passphrase
    shoal-convert keys init --release-key awskms:alias/shoal-release
    """  # noqa: D301 - click needs the character itself
    addresses = {"root": root_key, "release": release_key}
    act.init(
        where,
        root_keys=len(root_key) or root_keys,
        threshold=threshold,
        addresses=addresses,
        protect=protect,
        adopt_at_once=where.url is not None,
    )


@keys.command()
@_export
@_where
def adopt(act: ModuleType, where: Where, *, export: Path | None) -> None:
    """Hand a server in development trust to the keys of this folder; no device has to join again.

    Needs an administrator's token. The server deletes its own root and release keys.

    \b
    shoal-convert keys adopt --dir shoal-keys --url https://shoal.example
    """  # noqa: D301 - click needs the character itself
    act.adopt(where, export=export)


@keys.command()
@click.argument("kind", type=click.Choice(["release", "root", "online"]))
@click.option("--key", "address", metavar="KEY", help="The new key, if it exists already, such as awskms:…")
@click.option("--keep-old", is_flag=True, help="Let the old keys count beside the new one.")
@_passphrase
@_export
@_where
def rotate(
    act: ModuleType, where: Where, kind: str, address: str | None, export: Path | None, *, keep_old: bool, protect: bool
) -> None:
    """Replace the release key, the oldest root key, or the server's own online keys.

    \b
    shoal-convert keys rotate release
    shoal-convert keys rotate root --export next-root.json
    """  # noqa: D301 - click needs the character itself
    act.rotate(where, kind, address=address, keep_old=keep_old, protect=protect, export=export)


@keys.command()
@click.argument("keyid")
@_export
@_where
def remove(act: ModuleType, where: Where, keyid: str, *, export: Path | None) -> None:
    """Take a root or release key out of the trust, by the beginning of its id.

    \b
    shoal-convert keys remove 3f9a0c1b2d4e
    """  # noqa: D301 - click needs the character itself
    act.remove(where, keyid, export=export)


@keys.command()
@click.argument("file", type=_PATH)
@click.option("--key", required=True, metavar="KEY", help="The root key to sign with.")
@_where
def sign(act: ModuleType, where: Where, file: Path, key: str) -> None:
    """Sign a root that --export wrote, on the machine that has a root key; needs no network.

    \b
    shoal-convert keys sign next-root.json --key /media/safe/root-2.pem
    """  # noqa: D301 - click needs the character itself
    act.sign(where, file, key)


@keys.command("import")
@click.argument("file", type=_PATH)
@_where
def bring_back(act: ModuleType, where: Where, file: Path) -> None:
    """Send a root that enough root keys have signed to the server.

    \b
    shoal-convert keys import next-root.json --url https://shoal.example
    """  # noqa: D301 - click needs the character itself
    act.bring_back(where, file)


@keys.command()
@click.option("--days", type=click.IntRange(1, 400), default=90, show_default=True, help="Until it expires.")
@_key
@_where
def resign(act: ModuleType, where: Where, key: str | None, days: int) -> None:
    """Sign the list of releases again before it expires; for a job that runs every month.

    \b
    shoal-convert keys resign --key shoal-keys/release-1.pem
    """  # noqa: D301 - click needs the character itself
    act.resign(where, key, days)


@keys.command()
@click.argument("ref", metavar="NAME:VERSION")
@click.option("--below", is_flag=True, help="Revoke every older version too, for ever.")
@_key
@_where
def revoke(act: ModuleType, where: Where, ref: str, key: str | None, *, below: bool) -> None:
    """Take a release off the signed list: no device installs it or returns to it; where it runs, it is reported.

    \b
    shoal-convert keys revoke quality:1.3.0
    """  # noqa: D301 - click needs the character itself
    act.revoke_release(where, ref, key, below=below)


@keys.command()
@click.argument("ref", metavar="NAME:VERSION")
@_key
@_where
def deny(act: ModuleType, where: Where, ref: str, key: str | None) -> None:
    """Bar a listed release for as long as you say; `keys allow` lifts it.

    \b
    shoal-convert keys deny quality:1.3.0
    """  # noqa: D301 - click needs the character itself
    act.deny_release(where, ref, key, denied=True)


@keys.command()
@click.argument("ref", metavar="NAME:VERSION")
@_key
@_where
def allow(act: ModuleType, where: Where, ref: str, key: str | None) -> None:
    """Lift what `keys deny` barred.

    \b
    shoal-convert keys allow quality:1.3.0
    """  # noqa: D301 - click needs the character itself
    act.deny_release(where, ref, key, denied=False)


@keys.command()
@_where
def show(act: ModuleType, where: Where) -> None:
    """Show the keys of this folder; with --url, what the server's devices believe, and until when.

    \b
    shoal-convert keys show --url https://shoal.example
    """  # noqa: D301 - click needs the character itself
    act.show(where)
