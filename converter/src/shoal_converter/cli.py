"""`shoal-convert`: the command line.

Owns the list of commands and the one place where errors become advice and exit codes: 0 ok, 1 failed, 2 usage,
3 parity, 4 unsupported, 5 signature, 6 network. Names, options and help lie in ``commands/*_cli``, which import
what is heavy inside the commands.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from shoal_converter.commands import bundle_cli, doctor_cli, pack_cli, registry_cli
from shoal_converter.commands.keys_cli import keys
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
from shoal_converter.terminal import Terminal
from shoal_protocol.errors import CallerError, ShoalError, TrustError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shoal-converter", prog_name="shoal-convert")
def cli() -> None:
    """Turn trained models into verified, reproducible bundles, and bring them to a registry.

    \b
    shoal-convert pack model.joblib --trust --sample train.csv --target y -t quality:1.4.0
    shoal-convert push quality-1.4.0.tar
    """  # noqa: D301 - click needs the character itself


for _command in (
    pack_cli.pack,
    bundle_cli.inspect,
    bundle_cli.verify,
    bundle_cli.check,
    bundle_cli.attest,
    bundle_cli.unpack,
    bundle_cli.predict,
    bundle_cli.diff,
    registry_cli.push,
    registry_cli.pull,
    doctor_cli.doctor,
    keys,
):
    cli.add_command(_command)


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
