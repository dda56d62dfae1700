"""`shoal-convert`: the command line.

Owns arguments, the order of shells, and the one place where errors become advice and exit codes: 0 ok, 1 failed,
2 usage, 3 parity, 4 unsupported, 5 signature, 6 network. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_converter.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_SIGNATURE,
    EXIT_USAGE,
    ConverterError,
    ParityError,
    UnsupportedModelError,
    VariantRefusedError,
)
from shoal_converter.settings import Settings, load_settings
from shoal_converter.terminal import Terminal
from shoal_protocol.errors import CallerError, ShoalError, TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal_converter.bundle import Bundle
    from shoal_converter.pushing import Pushed
    from shoal_converter.signing.pipeline import ReleaseKey


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


_json = click.option("--json", "json_wanted", is_flag=True, help="Print the result as JSON.")
_url = click.option("--url", metavar="URL", help="The registry. Default: SHOAL_URL, then what shoalctl login stored.")
_token_file = click.option(
    "--token-file", type=click.Path(path_type=Path), help="File that holds the token. Default: SHOAL_TOKEN."
)


class _Program(click.Group):
    """The commands of this module, and groups whose modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        return sorted([*super().list_commands(ctx), "keys"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        if cmd_name != "keys":
            return super().get_command(ctx, cmd_name)
        from shoal_converter.commands.keys_cli import keys  # noqa: PLC0415 - keeps the others apart from it

        return keys


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shoal-converter", prog_name="shoal-convert")
def cli() -> None:
    """Turn trained models into verified, reproducible bundles, and bring them to a registry.

    \b
    shoal-convert pack model.joblib --trust --sample train.csv --target y -t quality:1.4.0
    shoal-convert push quality-1.4.0.tar
    """  # noqa: D301 - click needs the character itself


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--sample", type=click.Path(path_type=Path), help="Rows like the training data: .npz .npy .csv .parquet.")
@click.option("--target", metavar="NAME", help="Column (or array of an .npz) that holds the labels or values.")
@click.option("-t", "--tag", required=True, metavar="NAME:VERSION", help="What to call it, such as quality:1.4.0.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder or .tar. Default: NAME-VERSION.tar.")
@click.option("--trust", is_flag=True, help="SOURCE is a pickle whose origin you know; it runs in a child process.")
@click.option("--parent", metavar="BUNDLE", help="Earlier version (path, or name:1.3.0) whose grids are inherited.")
@click.option(
    "--validation", type=click.Path(path_type=Path), help="Rows the model has never seen, for honest figures."
)
@click.option(
    "--segment-by", multiple=True, metavar="COLUMN[,COLUMN]", help="Split the figures by columns; may be repeated."
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice(["fp16", "int8", "int8-dynamic", "auto"]),
    help="Build it beside the canonical model, if it proves near enough and a gain; may be repeated.",
)
@click.option("--latency-budget", type=click.FloatRange(min=0, min_open=True), metavar="MS", help="p95 of one row.")
@click.option("--memory-budget", type=click.IntRange(min=1), metavar="MB", help="What the model may need on a device.")
@click.option("--rtol", type=float, default=1e-4, show_default=True, help="Relative difference that counts as equal.")
@click.option("--atol", type=float, default=1e-5, show_default=True, help="Absolute difference that counts as equal.")
@click.option("--max-label-flips", type=Share(), default="0%", show_default=True, help="Rows whose label may differ.")
@click.option("--float64-inputs", is_flag=True, help="Feed floats in double from the start.")
@click.option("--about", type=click.Path(path_type=Path), help="Markdown for the model card: intended use, limits.")
@click.option("--licence", type=click.Path(path_type=Path), help="The model's licence text.")
@click.option("--contract", type=click.Path(path_type=Path), help="YAML: what the features' values must be.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Added to the provenance; may be repeated.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
@_url
@_token_file
@_json
def pack(**arguments: Any) -> None:
    """Convert, prove and pack a trained model.

    SOURCE is a .joblib or .pkl with a fitted scikit-learn estimator or pipeline, a file of XGBoost, LightGBM or
    CatBoost, an .onnx, or a folder that MLflow wrote. A pickle is a program: it needs --trust, and is loaded in a
    child process without your credentials (and without network, where the system allows).

    \b
    shoal-convert pack model.joblib --trust --sample train.csv --target y -t quality:1.4.0
    shoal-convert pack model.joblib --trust --sample train.npz -t quality:1.4.1 --parent quality-1.4.0.tar
    shoal-convert pack model.joblib --trust --sample train.csv --validation unseen.csv --target y \
        --segment-by site -t quality:1.4.2
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.commands.pack import run  # noqa: PLC0415 - keeps --help quick

    with _parent_path(arguments.pop("parent"), arguments.pop("url"), arguments.pop("token_file")) as parent:
        run(Terminal(json_wanted=arguments.pop("json_wanted")), parent=parent, **arguments)


@cli.command(short_help="Show what is inside a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@_json
def inspect(bundle: Path, *, json_wanted: bool) -> None:
    """Show what is inside a bundle, after checking its digests."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    terminal, opened = Terminal(json_wanted=json_wanted), _open(bundle)
    if json_wanted:
        reference = opened.reference
        terminal.json(
            {
                "ref": str(opened.ref),
                "digest": opened.digest,
                "size": opened.size_bytes,
                "bundle": msgspec.to_builtins(opened.info),
                "schema": msgspec.to_builtins(opened.schema),
                "files": [{"path": p, "size": d.size, "digest": d.digest} for p, d in opened.manifest.files().items()],
                "metrics": reference.metrics if reference else {},
                "importance": reference.importance if reference else {},
                "segments": msgspec.to_builtins(reference.segments) if reference else [],
                "sources": reference.sources if reference else {},
                "quality": msgspec.to_builtins(reference.quality) if reference else None,
                "measured": opened.statement("measurement"),
                "statements": sorted(opened.statements),
            }
        )
        return
    terminal.facts(opened.summary())
    click.echo()
    files = opened.manifest.files().items()
    terminal.table(("FILE", "BYTES", "DIGEST"), [(path, f"{d.size:,}", d.digest[:19] + "…") for path, d in files])


@cli.command(short_help="Check a bundle from itself alone.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--oms-key", type=click.Path(path_type=Path), help="Public key (PEM) that must have signed by OMS.")
@click.option("--oms-signature", type=click.Path(path_type=Path), help="Default: the one beside the bundle.")
@_json
def verify(bundle: Path, oms_key: Path | None, oms_signature: Path | None, *, json_wanted: bool) -> None:
    """Check a bundle from itself alone: digests, documents, model, golden rows, statements.

    \b
    shoal-convert verify quality-1.4.0.tar --oms-key release.pub
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.verification import verify as make_checks  # noqa: PLC0415 - keeps --help quick

    terminal, opened = Terminal(json_wanted=json_wanted), _open(bundle)
    checks = make_checks(opened, oms_key=_content(oms_key), oms_signature=_content(oms_signature))
    ok = all(check.ok for check in checks)
    if json_wanted:
        listed = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
        terminal.json({"ref": str(opened.ref), "digest": opened.digest, "ok": ok, "checks": listed})
    else:
        terminal.table(("CHECK", "", "FOUND"), [(c.name, "ok" if c.ok else "FAILED", c.detail) for c in checks])
    if not ok:
        raise click.exceptions.Exit(EXIT_FAILED)


@cli.command(short_help="Sign a bundle's files by OpenSSF Model Signing.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, metavar="KEY", envvar="SHOAL_KEY", help="An ECDSA key: a path, or awskms:…")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="File that holds the key's passphrase.")
def attest(bundle: Path, key: str, passphrase_file: Path | None) -> None:
    """Sign a bundle's files by OpenSSF Model Signing (OMS), beside the bundle: its digest stays the same.

    `unpack` writes the signature to attestations/oms.sig, where `model_signing verify key` checks it.

    \b
    shoal-convert attest quality-1.4.0.tar --key shoal-keys/release-1.pem
    """  # noqa: D301 - click needs the character itself
    from dataclasses import replace  # noqa: PLC0415 - keeps --help quick

    from shoal_converter.bundle import OMS  # noqa: PLC0415
    from shoal_converter.signing.oms import sign_files  # noqa: PLC0415

    opened, signing = _open(bundle), _release_key(key, None, passphrase_file)
    assert signing is not None
    signature = sign_files(opened.unpacked(), name=opened.info.name, signer=signing.signer)
    replace(opened, statements={**opened.statements, OMS: signature}).write(bundle, force=True)
    Terminal(json_wanted=False).facts([("signed", f"{opened.ref} by the key {signing.keyid[:12]}")])


@cli.command(short_help="Upload a bundle to a registry.")
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
@_url
@_token_file
@_json
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

    terminal, opened = Terminal(json_wanted=json_wanted), _open(bundle)
    settings = load_settings(url=url, token_file=token_file)
    release_key = _release_key(key, root, passphrase_file)
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


@cli.command(short_help="Download a bundle and check every digest.")
@click.argument("ref")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder or .tar. Default: NAME-VERSION.tar.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
@_url
@_token_file
@_json
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


@cli.command(short_help="Write a bundle's files into a folder.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new folder.")
def unpack(bundle: Path, output: Path) -> None:
    """Write a bundle's files into a folder, for looking at or for other tools."""
    from shoal_converter.commands.unpack import run  # noqa: PLC0415 - keeps --help quick

    for path in run(_open(bundle), output):
        click.echo(str(path))


@cli.command(short_help="Run a bundle's model on rows.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--input", "rows", type=click.Path(path_type=Path), help="Rows: .csv .npz .npy. Default: golden rows.")
@_json
def predict(bundle: Path, rows: Path | None, *, json_wanted: bool) -> None:
    """Run a bundle's model on rows, here, as a device would."""
    from shoal_converter.commands.predict import run  # noqa: PLC0415 - keeps --help quick

    run(Terminal(json_wanted=json_wanted), _open(bundle), rows)


@cli.command(short_help="Show what differs between two bundles.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_json
def diff(old: Path, new: Path, *, json_wanted: bool) -> None:
    """Show what differs between two bundles: inputs, outputs, figures, grids, files."""
    from shoal_converter.comparison import differences  # noqa: PLC0415 - keeps --help quick

    terminal = Terminal(json_wanted=json_wanted)
    found = differences(_open(old), _open(new))
    if json_wanted:
        terminal.json({"same": not found, "differences": [difference.as_json() for difference in found]})
    elif found:
        terminal.table(("WHAT", "OLD", "NEW"), [(d.what, d.old, d.new) for d in found])
    else:
        click.echo("the same bundle")


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


def _release_key(key: str | None, root: Path | None, passphrase_file: Path | None) -> ReleaseKey | None:
    if key is None:
        return None
    from shoal_converter.signing.pipeline import open_release_key  # noqa: PLC0415 - only where something is signed
    from shoal_converter.signing.signers import passphrase_reader  # noqa: PLC0415

    def ask(what: str) -> bytes:
        text: str = click.prompt(f"Passphrase of {what}", hide_input=True, err=True)
        return text.encode()

    return open_release_key(key, root=root, passphrase=passphrase_reader(passphrase_file, ask=ask))


def _content(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CallerError(f"{path} can't be read: {error.strerror or error}") from error


def _open(path: Path) -> Bundle:
    from shoal_converter.bundle import Bundle  # noqa: PLC0415 - keeps --help quick

    return Bundle.open(path)


@contextmanager
def _parent_path(parent: str | None, url: str | None, token_file: Path | None) -> Iterator[Path | None]:
    """Yield the folder or file of the parent bundle; a reference is pulled first."""
    if parent is None or Path(parent).exists() or (":" not in parent and "@" not in parent):
        yield None if parent is None else Path(parent)
        return
    from shoal_converter.pushing import pull as fetch  # noqa: PLC0415 - keeps --help quick

    settings: Settings = load_settings(url=url, token_file=token_file)
    with tempfile.TemporaryDirectory(prefix="shoal-parent-") as folder:
        bundle = fetch(parent, settings.url, token=settings.token, ca=settings.ca)
        yield bundle.write(Path(folder) / "parent")


def exit_code_of(error: ShoalError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, ConverterError):
        return error.exit_code
    if isinstance(error, TrustError):
        return EXIT_SIGNATURE
    return EXIT_USAGE if isinstance(error, CallerError) else EXIT_FAILED


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    try:
        found = cli.main(list(arguments), prog_name="shoal-convert", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return EXIT_FAILED
    except ShoalError as error:
        _tell(error, json_wanted="--json" in arguments)
        return exit_code_of(error)
    return found if isinstance(found, int) else EXIT_OK


def _tell(error: ShoalError, *, json_wanted: bool) -> None:
    terminal = Terminal(json_wanted=json_wanted)
    terminal.error(error)
    if not json_wanted:
        return
    answer: dict[str, Any] = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    if isinstance(error, UnsupportedModelError):
        refused = [{"step": error.step, "why": error.why, "way_round": error.way_round}]
        answer |= {"ref": None, "digest": None, "path": None, "parity": None, "refused": refused}
    elif isinstance(error, ParityError):
        answer |= {"ref": None, "digest": None, "path": None, "parity": error.report, "refused": []}
    elif isinstance(error, VariantRefusedError):
        figures = [{"variant": error.data["variant"], "why": error.message, "figures": error.figures}]
        answer |= {"ref": None, "digest": None, "path": None, "parity": None, "refused": figures}
    terminal.json(answer)


def main() -> None:
    """Run as a program."""
    sys.exit(run(sys.argv[1:]))
