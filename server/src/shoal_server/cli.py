"""`shoal-server`: start the server, look after it, see the show.

Owns the command line: options, what is printed, exit codes (0 ok, 1 failed, 2 usage). Everything else is imported when
a command runs, so that `--help` is quick.
"""

import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_protocol.errors import ShoalError

if TYPE_CHECKING:
    from shoal_server.bootstrap import Server
    from shoal_server.storage.settings import Settings

_LATER: Mapping[str, tuple[str, str]] = {
    "demo": ("shoal_server.demo.command:demo", "Show the main job end to end, with a fleet of thirty devices."),
}
"""Commands of other modules: name -> where it is, and its line in the help."""


_TRUST: Mapping[str, str] = {
    "development": "development trust: this server holds all signing keys",
    "release_key": "release keys: this server signs no releases, `shoal-convert push --key` does",
}
"""What is said at the start, by `TrustMode`."""

_FILE = click.Path(dir_okay=False, path_type=Path)
_LOG_LEVELS = ["debug", "info", "warning", "error"]


class _Commands(click.Group):
    """A group whose commands are imported when they are called, and which turns errors into advice."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LATER:
            return super().get_command(ctx, cmd_name)
        where, text = _LATER[cmd_name]
        if "--help" in sys.argv[1:2] or len(sys.argv) < 2:
            return click.Command(cmd_name, help=text)  # only its line in the list is wanted
        module, _, name = where.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ShoalError as error:
            click.echo(f"error: {error.message}", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
            ctx.exit(1)


def _data_option(command: Any) -> Any:
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the server's own state.  [default: $SHOAL_DATA or ~/.local/share/shoal]",
    )(command)


def _blobs_options(command: Any) -> Any:
    """Add what is told about the place for blobs."""
    where = "s3://BUCKET/PREFIX (keys by AWS_…) or oci://HOST/REPOSITORY (SHOAL_BLOBS_USER, …_PASSWORD)."
    command = click.option("--blobs-ca", type=_FILE, help="Who signed the certificate of that registry.")(command)
    return click.option("--blobs", metavar="URL", help=f"Keep models elsewhere: {where}  [a folder in --data]")(command)


def _tls_options(command: Any) -> Any:
    """Add what is told about certificates: the server's own, and those of the line to an external broker."""
    options = (
        click.option(
            "--lan",
            is_flag=True,
            default=None,
            help="Speak TLS to the whole network, by an authority that join tokens pin.",
        ),
        click.option(
            "--tls-name", "tls_names", multiple=True, metavar="NAME", help="With --lan: a further name or address."
        ),
        click.option(
            "--tls-cert", type=_FILE, help="Certificate for HTTP and MQTT (PEM, with its chain), instead of --lan."
        ),
        click.option("--tls-key", type=_FILE, help="Its key."),
        click.option(
            "--tls-ca", type=_FILE, help="Who signed it, where the devices' systems don't know that authority."
        ),
        click.option(
            "--broker-ca", type=_FILE, help="Who signed the certificate of that broker.  [the system's authorities]"
        ),
        click.option("--broker-cert", type=_FILE, help="The server's certificate for that broker (mutual TLS)."),
        click.option("--broker-key", type=_FILE, help="Its key."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shoal-server", prog_name="shoal-server")
def main() -> None:
    """Registry, fleet, rollouts and drift detection for models on edge devices."""


# Long because of its options, one line each.
@main.command()
@_data_option
@click.option("--listen", metavar="HOST:PORT", help="Where HTTP is served; port 0 takes a free one.  [127.0.0.1:8080]")
@click.option("--broker", metavar="URL", help="'embedded' (default), mqtt(s)://user:password@host:port or ws(s)://….")
@click.option("--mqtt-listen", metavar="HOST:PORT", help="Where the embedded MQTT endpoint listens.  [127.0.0.1:0]")
@click.option(
    "--broker-credentials-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where an external mosquitto reads its password and ACL files.",
)
@click.option("--database", metavar="URL", help="postgresql://… or sqlite:///PATH.  [SQLite in --data]")
@_blobs_options
@click.option("--public-url", metavar="URL", help="How devices reach this server when a proxy stands in front of it.")
@click.option("--false-alarms", metavar="TEXT", help="Drift alarms of a quiet fleet at most, such as '1 a year'.")
@click.option(
    "--season",
    type=click.Choice(["auto", "none", "day", "week"]),
    help="After what time the fleet's data repeat themselves.  [auto: a day, with windows of a minute or longer]",
)
@click.option("--registry-quota", metavar="SIZE", help="What all models together may hold, such as 20GB.  [no limit]")
@click.option("--model-quota", metavar="SIZE", help="What one model may hold with all its versions.  [no limit]")
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="A cache or copy of this registry, which devices try before they ask here; may be repeated.",
)
@click.option(
    "--compress/--no-compress",
    default=None,
    help="Make compressed files and patches for devices, in the background.  [yes]",
)
@click.option(
    "--credential-days",
    type=click.FloatRange(0, 36_500),
    help="Age at which devices get themselves new credentials; 0: never by themselves.  [90]",
)
@click.option(
    "--webhook-allow",
    multiple=True,
    metavar="HOST",
    help="A host or network (10.0.0.0/8) of your own that webhooks may send to; may be repeated.",
)
@click.option(
    "--webhook-ca", type=_FILE, help="Who signed the certificates of receivers of webhooks, if not the web's."
)
@_tls_options
@click.option("--insecure", is_flag=True, default=None, help="Allow plain HTTP and MQTT beyond this machine.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print where the server is as one line of JSON, when it is ready."
)
@click.option(
    "--log-level", default="warning", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
def serve(*, as_json: bool, log_level: str, **flags: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    For devices on this network, encrypted without further set-up: shoal-server serve --lan
    """
    from shoal_server.bootstrap import Server  # noqa: PLC0415 - heavy
    from shoal_server.storage.settings import load_settings  # noqa: PLC0415 - as above

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = Server(load_settings(**flags))
    server.start()
    try:
        _announce(server, as_json=as_json)
        while server.alive and not ended.wait(1.0):
            pass
        if not ended.is_set():
            raise click.ClickException(server.fault or "the HTTP server ended by itself; the log says why")
    finally:
        server.stop()


def _check_database(settings: "Settings") -> None:
    """Refuse to make a new database where one was to be looked after."""
    if not settings.database and not (settings.data / "shoal.db").exists():
        raise click.ClickException(f"there is no database in {settings.data}; give the server's --data or --database")


def _announce(server: "Server", *, as_json: bool) -> None:
    runtime = server.runtime
    if server.first_password is not None:
        # On stderr even with --json: it is shown this once, and never belongs into what a program keeps.
        click.echo(f"first start: log in as 'admin' with the password  {server.first_password}", err=True)
    if as_json:
        click.echo(runtime.as_json())
    else:
        click.echo(f"Shoal is ready at {runtime.url}  (devices: {runtime.broker_url}, data: {server.settings.data})")
        if runtime.ca is not None:
            click.echo(f"certificates are signed by {runtime.ca}: other machines need a copy, as SHOAL_CA or --ca")
        click.echo(_TRUST[server.services.trust.mode.value])
    sys.stdout.flush()


@main.command()
@_data_option
@click.option("--database", metavar="URL", help="The server's database.  [SQLite in --data]")
@_blobs_options
@click.option("--dry-run", is_flag=True, help="Tell what would be taken away; change nothing.")
@click.option(
    "--grace-hours", type=click.FloatRange(min=0), default=24.0, show_default=True, help="Keep what is younger."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def gc(*, dry_run: bool, grace_hours: float, as_json: bool, **flags: Any) -> None:
    """Take away blobs that nothing refers to; the server also does so by itself, every six hours.

    Safe while the server runs and models are pushed. What a version, alias, rollout or device needs always stays; to
    free a version's space, delete it first: shoalctl model delete NAME:VERSION.

    Example: shoal-server gc --dry-run
    """
    from shoal_server.bootstrap import collect_garbage  # noqa: PLC0415 - heavy
    from shoal_server.storage.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings(**flags)
    _check_database(settings)
    found = collect_garbage(settings, grace_s=grace_hours * 3600, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(found.as_json()))
        return
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{verb}: {found.blobs} blobs ({found.bytes} bytes), {found.manifests} manifests")
    click.echo(f"kept: {found.kept_blobs} blobs ({found.kept_bytes} bytes)")
    if found.refused:
        click.echo(f"not everything that could go is gone: {found.refused}", err=True)


@main.group()
def admin() -> None:
    """Look after a server, on its own machine."""


@admin.command("reset-password")
@_data_option
@click.option("--database", metavar="URL", help="The server's database.  [SQLite in --data]")
@click.option("--name", default="admin", show_default=True, help="Whose password.")
def reset_password(*, name: str, **flags: Any) -> None:
    """Give a person a new random password and end their sessions."""
    import time  # noqa: PLC0415 - beside the others

    from shoal_server.access import people  # noqa: PLC0415 - heavy
    from shoal_server.access.secrets import Passwords  # noqa: PLC0415 - as above
    from shoal_server.storage.database import Database  # noqa: PLC0415 - as above
    from shoal_server.storage.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings(**flags)
    _check_database(settings)
    database = Database(settings.database_url)
    try:
        database.reach()
        password = people.reset_password(database, Passwords(), name=name, now=time.time())
    finally:
        database.close()
    click.echo(f"{name}: {password}")


@main.command()
@_data_option
@click.option("--database", metavar="URL", help="The server's database.  [SQLite in --data]")
@_blobs_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(*, as_json: bool, **flags: Any) -> None:
    """Check this machine and this server's state; exit 1 when something is wrong."""
    from shoal_server.doctor import examine  # noqa: PLC0415 - heavy
    from shoal_server.storage.settings import load_settings  # noqa: PLC0415 - as above

    findings = examine(load_settings(**flags))
    if as_json:
        click.echo(json.dumps({"findings": [finding.as_json() for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.what}")
            if finding.hint:
                click.echo(f"      {finding.hint}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


if __name__ == "__main__":
    main()
