"""What the commands' arguments have in common: options of one meaning everywhere, and how their values are opened.

Light: a command's work, and with it every heavy import, begins after its arguments were understood.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_converter.settings import Settings, load_settings
from shoal_protocol.errors import CallerError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from shoal_converter.bundle import Bundle
    from shoal_converter.signing.pipeline import ReleaseKey
    from shoal_converter.signing.signers import AskPassphrase


json_option = click.option("--json", "json_wanted", is_flag=True, help="Print the result as JSON.")
url_option = click.option(
    "--url", metavar="URL", help="The registry. Default: SHOAL_URL, then what shoalctl login stored."
)
token_file_option = click.option(
    "--token-file", type=click.Path(path_type=Path), help="File that holds the token. Default: SHOAL_TOKEN."
)


root_option = click.option(
    "--root", type=click.Path(path_type=Path), help="The pinned root. Default: root.json beside the key."
)
passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    envvar="SHOAL_KEY_PASSPHRASE_FILE",
    help="File that holds the key's passphrase.",
)
oms_key_option = click.option(
    "--oms-key", metavar="KEY", help="Sign the files by OpenSSF Model Signing too, with this ECDSA key."
)


class Share(click.ParamType[float]):
    """A share of rows: ``0.001`` or ``0.1%``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number from 0 to 1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share: write 0.1% or 0.001", param, ctx)
        return share


def open_bundle(path: Path) -> Bundle:
    """Read a bundle, with every digest checked."""
    from shoal_converter.bundle import Bundle  # noqa: PLC0415 - keeps --help quick

    return Bundle.open(path)


def content_of(path: Path | None) -> bytes | None:
    """Return a file's bytes; none where no path was given.

    Raises:
        CallerError: It can't be read.
    """
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CallerError(f"{path} can't be read: {error.strerror or error}") from error


def opened_release_key(key: str | None, root: Path | None, passphrase_file: Path | None) -> ReleaseKey | None:
    """Open a release key by its path or address, and ask for its passphrase where it needs one; none without a key."""
    if key is None:
        return None
    from shoal_converter.signing.pipeline import open_release_key  # noqa: PLC0415 - only where something is signed

    return open_release_key(key, root=root, passphrase=_passphrase(passphrase_file))


def opened_signer(key: str, passphrase_file: Path | None) -> Signer:
    """Open a key for signing anything, and ask for its passphrase where it needs one."""
    from shoal_converter.signing.signers import Opener  # noqa: PLC0415 - only where something is signed

    return Opener(_passphrase(passphrase_file)).open(key)


def _passphrase(file: Path | None) -> AskPassphrase:
    from shoal_converter.signing.signers import passphrase_reader  # noqa: PLC0415 - only where something is signed

    def ask(what: str) -> bytes:
        text: str = click.prompt(f"Passphrase of {what}", hide_input=True, err=True)
        return text.encode()

    return passphrase_reader(file, ask=ask)


def with_oms(bundle: Bundle, key: str | None, passphrase_file: Path | None) -> Bundle:
    """Return a bundle with an OMS signature by a key beside it; as it is where no key was named."""
    if key is None:
        return bundle
    from shoal_converter.signing.oms import attested  # noqa: PLC0415 - cryptography

    return attested(bundle, opened_signer(key, passphrase_file))


@contextmanager
def parent_path(parent: str | None, url: str | None, token_file: Path | None) -> Iterator[Path | None]:
    """Yield the folder or file of the parent bundle; a reference is pulled first."""
    if parent is None or Path(parent).exists() or (":" not in parent and "@" not in parent):
        yield None if parent is None else Path(parent)
        return
    from shoal_converter.pushing import pull as fetch  # noqa: PLC0415 - keeps --help quick

    settings: Settings = load_settings(url=url, token_file=token_file)
    with tempfile.TemporaryDirectory(prefix="shoal-parent-") as folder:
        bundle = fetch(parent, settings.url, token=settings.token, ca=settings.ca)
        yield bundle.write(Path(folder) / "parent")
