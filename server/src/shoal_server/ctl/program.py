"""What every command is handed: the connection, made when it is first used, and the way to print.

Owns the options that all commands share (`connected`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shoal_server.ctl import settings as configuration
from shoal_server.ctl.output import print_json
from shoal_server.ctl.settings import Flags, Settings

if TYPE_CHECKING:
    import httpx2

    from shoal_server.ctl.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass
class Program:
    """One run of shoalctl.

    Args:
        environment: where settings are read from.
        transport: carries requests instead of sockets, in tests.
        sleep: waits between two looks at the server; None: real seconds.
    """

    environment: Mapping[str, str]
    transport: httpx2.BaseTransport | None = None
    sleep: Callable[[float], None] | None = None
    flags: Flags = field(default_factory=Flags)


@dataclass
class Call:
    """One command being carried out."""

    program: Program
    flags: Flags
    json: bool

    @functools.cached_property
    def settings(self) -> Settings:
        """The server and the credentials; see `settings_from`."""
        return configuration.settings_from(self.program.environment, self.flags)

    @functools.cached_property
    def client(self) -> Client:
        """The connection."""
        return self.client_for(self.settings)

    def client_for(self, settings: Settings) -> Client:
        """Make a connection with other settings than the usual ones."""
        from shoal_server.ctl.client import Client  # noqa: PLC0415 - httpx2 costs 80 ms that --help needn't pay

        return Client(settings, transport=self.program.transport)

    def show(self, value: Any, as_text: Callable[[], None]) -> None:
        """Print `value` as JSON when that was asked for, else as text."""
        if self.json:
            print_json(value)
        else:
            as_text()

    def sleep(self, seconds: float) -> None:
        """Wait between two looks at the server."""
        if self.program.sleep is not None:
            self.program.sleep(seconds)
            return
        import time  # noqa: PLC0415 - beside its only use

        time.sleep(seconds)


def connection_options(*, hidden: bool) -> Callable[[_Command], _Command]:
    """Add --url, --token, --token-file and --ca to a command."""
    readable = click.Path(dir_okay=False, path_type=Path)
    options = [
        click.option("--url", hidden=hidden, metavar="URL", help="The server [SHOAL_URL]."),
        click.option("--token", hidden=hidden, metavar="T", help="API token [SHOAL_TOKEN]; others see it in `ps`."),
        click.option("--token-file", hidden=hidden, type=readable, help="File with the token [SHOAL_TOKEN_FILE]."),
        click.option("--ca", hidden=hidden, type=readable, help="Certificates to trust [SHOAL_CA]."),
    ]

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all share, and its `Call` as the first argument."""

    @connection_options(hidden=True)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        program = click.get_current_context().find_object(Program)
        assert program is not None, "the command line is run with a Program as its object"
        given = Flags(**{name: kwargs.pop(name) for name in ("url", "token", "token_file", "ca")})
        call = Call(program, given.over(program.flags), kwargs.pop("as_json"))
        return function(call, *args, **kwargs)

    return run
