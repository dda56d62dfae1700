"""The commands' tree, errors as advice, exit codes.

Owns which module holds which command. A module is imported when one of its commands is typed: so `--help` is quick.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from shoal_protocol.errors import ShoalError
from shoal_server.ctl.errors import ExitCode, ProblemError, exit_code_of
from shoal_server.ctl.program import Program, connection_options
from shoal_server.ctl.settings import Flags, process_environment

_PACKAGE = "shoal_server.ctl.commands"
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "login": ("login:login", "Remember a server and the credentials for it."),
    "token": ("token:token", "Make join tokens for devices and API tokens for programs."),
    "person": ("person:person", "Let people log in to the dashboard, and end that."),
    "device": ("device:device", "See and manage devices."),
    "model": ("model:model", "See models and versions, move aliases."),
    "rollout": ("rollout:rollout", "Move a cohort to a bundle by stages; watch and stop it."),
    "shadow": ("shadow:shadow", "Run a bundle beside the active one, answering nobody, and compare them."),
    "sampling": ("sampling:sampling", "Let devices send some raw inputs for a time; fetch or delete what came."),
    "drift": ("drift:drift", "See what changed in inputs and predictions."),
    "contract": ("contract:contract", "See what values must be, and who breaks it."),
    "quality": ("quality:quality", "See how right the models are, with true labels and without."),
    "alert": ("alert:alert", "See alerts and acknowledge them."),
    "webhook": ("webhook:webhook", "Send events to other programs and chats; see what came of it."),
    "trust": ("trust:trust", "See who may sign what here, and until when."),
    "audit": ("audit:audit", "See who changed what, and prove that nothing was removed."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; suggests what may have been meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a device's life."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that is none of them gets a suggestion."""
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@connection_options(hidden=False)
@click.version_option(package_name="shoal-server", prog_name="shoalctl")
@click.pass_obj
def cli(program: Program, url: str | None, token: str | None, token_file: Path | None, ca: Path | None) -> None:
    """Operate a fleet: devices, models, rollouts, drift.

    Start with `shoalctl login URL`. Every command takes --json. Exit codes: 0 ok, 1 failed, 2 usage, 3 the watched
    rollout ended rolled back or failed, 4 not allowed.
    """
    program.flags = Flags(url=url, token=token, token_file=token_file, ca=ca)


def run(arguments: Iterable[str], program: Program) -> int:
    """Carry out one command line and return its exit code; errors are printed as advice."""
    try:
        result: Any = cli.main(list(arguments), prog_name="shoalctl", standalone_mode=False, obj=program)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return ExitCode.STOPPED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; Python must not complain about it at exit
        return ExitCode.OK
    except ShoalError as error:
        _explain(error)
        return exit_code_of(error)
    return result if isinstance(result, int) else ExitCode.OK


def main() -> None:
    """Entry point of the command `shoalctl`."""
    sys.exit(run(sys.argv[1:], Program(process_environment())))


def _explain(error: ShoalError) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True)
    if isinstance(error, ProblemError) and error.status >= 500 and error.request_id:
        click.echo(f"The server's log has more under {error.request_id}.", err=True)
