"""The commands about a bundle that lies here: look at it, check it, sign it, run it."""

from __future__ import annotations

from pathlib import Path

import click

from shoal_converter.commands.arguments import content_of, json_option, open_bundle, opened_signer, passphrase_option
from shoal_converter.errors import EXIT_FAILED
from shoal_converter.terminal import Terminal


@click.command(short_help="Show what is inside a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def inspect(bundle: Path, *, json_wanted: bool) -> None:
    """Show what is inside a bundle, after checking its digests."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    terminal, opened = Terminal(json_wanted=json_wanted), open_bundle(bundle)
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


@click.command(short_help="Check a bundle from itself alone.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--oms-key", type=click.Path(path_type=Path), help="Public key (PEM) that must have signed by OMS.")
@click.option("--oms-signature", type=click.Path(path_type=Path), help="Default: the one beside the bundle.")
@json_option
def verify(bundle: Path, oms_key: Path | None, oms_signature: Path | None, *, json_wanted: bool) -> None:
    """Check a bundle from itself alone: digests, documents, model, golden rows, statements.

    \b
    shoal-convert verify quality-1.4.0.tar --oms-key release.pub
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.verification import verify as make_checks  # noqa: PLC0415 - keeps --help quick

    terminal, opened = Terminal(json_wanted=json_wanted), open_bundle(bundle)
    checks = make_checks(opened, oms_key=content_of(oms_key), oms_signature=content_of(oms_signature))
    ok = all(check.ok for check in checks)
    if json_wanted:
        listed = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
        terminal.json({"ref": str(opened.ref), "digest": opened.digest, "ok": ok, "checks": listed})
    else:
        terminal.table(("CHECK", "", "FOUND"), [(c.name, "ok" if c.ok else "FAILED", c.detail) for c in checks])
    if not ok:
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command(short_help="Pass a bundle through its gates again, on this machine.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="FIGURE>=VALUE",
    help="What a figure of the model must be, such as 'accuracy>=0.95'; may be repeated.",
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the gates as a JUnit report.")
@json_option
def check(bundle: Path, required: tuple[str, ...], junit: Path | None, *, json_wanted: bool) -> None:
    """Pass a bundle through its gates again, from itself alone and on this machine's onnxruntime.

    Golden rows of the model and its variants, the stated parity, the budgets that it declares, and the figures that
    you require. Exit code 3: answers differ; 1: another gate failed.

    \b
    shoal-convert check quality-1.4.0.tar
    shoal-convert check quality-1.4.0.tar --require 'accuracy>=0.95' --junit gates.xml
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.commands.check import run  # noqa: PLC0415 - keeps --help quick

    code = run(Terminal(json_wanted=json_wanted), open_bundle(bundle), required=required, junit=junit)
    raise click.exceptions.Exit(code)


@click.command(short_help="Sign a bundle's files by OpenSSF Model Signing.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, metavar="KEY", envvar="SHOAL_KEY", help="An ECDSA key: a path, or awskms:…")
@passphrase_option
def attest(bundle: Path, key: str, passphrase_file: Path | None) -> None:
    """Sign a bundle's files by OpenSSF Model Signing (OMS), beside the bundle: its digest stays the same.

    `unpack` writes the signature to attestations/oms.sig, where `model_signing verify key` checks it.

    \b
    shoal-convert attest quality-1.4.0.tar --key shoal-keys/release-1.pem
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.signing.oms import attested  # noqa: PLC0415 - keeps --help quick

    opened, signer = open_bundle(bundle), opened_signer(key, passphrase_file)
    attested(opened, signer).write(bundle, force=True)
    Terminal(json_wanted=False).facts([("signed", f"{opened.ref} by the key {signer.public_key.keyid[:12]}")])


@click.command(short_help="Write a bundle's files into a folder.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new folder.")
def unpack(bundle: Path, output: Path) -> None:
    """Write a bundle's files into a folder, for looking at or for other tools."""
    from shoal_converter.commands.unpack import run  # noqa: PLC0415 - keeps --help quick

    for path in run(open_bundle(bundle), output):
        click.echo(str(path))


@click.command(short_help="Run a bundle's model on rows.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--input", "rows", type=click.Path(path_type=Path), help="Rows: .csv .npz .npy. Default: golden rows.")
@json_option
def predict(bundle: Path, rows: Path | None, *, json_wanted: bool) -> None:
    """Run a bundle's model on rows, here, as a device would."""
    from shoal_converter.commands.predict import run  # noqa: PLC0415 - keeps --help quick

    run(Terminal(json_wanted=json_wanted), open_bundle(bundle), rows)


@click.command(short_help="Show what differs between two bundles.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@json_option
def diff(old: Path, new: Path, *, json_wanted: bool) -> None:
    """Show what differs between two bundles: inputs, outputs, figures, grids, files."""
    from shoal_converter.comparison import differences  # noqa: PLC0415 - keeps --help quick

    terminal = Terminal(json_wanted=json_wanted)
    found = differences(open_bundle(old), open_bundle(new))
    if json_wanted:
        terminal.json({"same": not found, "differences": [difference.as_json() for difference in found]})
    elif found:
        terminal.table(("WHAT", "OLD", "NEW"), [(d.what, d.old, d.new) for d in found])
    else:
        click.echo("the same bundle")
