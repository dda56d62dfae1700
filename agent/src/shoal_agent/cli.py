"""The command ``shoal-agent``: arguments, one place that turns errors into advice and exit codes, and nothing else.

Imports are lazy, because ``--help`` must not pay for onnxruntime (93 ms) or cryptography (21 ms).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_agent.adapters.folder_owner import as_owner
from shoal_agent.bulk.command import add_predict
from shoal_agent.cli_service import add_inspection, add_service
from shoal_agent.cli_updates import add_commands
from shoal_agent.errors import NoModelError, NotEnrolledError, SettingsError
from shoal_agent.logs import LEVELS, set_up_log
from shoal_agent.settings import (
    join_token,
    load_settings,
    logs_to_journal,
    service_manager,
    state_folder,
)
from shoal_agent.stopping import stop_on_signals
from shoal_agent.terminal import flags_of, print_json
from shoal_protocol.errors import CallerError, LocalError, ShoalError

if TYPE_CHECKING:
    from shoal_agent.settings import Settings

OK, FAILED, USAGE, NO_MODEL, NOT_ENROLLED = 0, 1, 2, 3, 4

_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
"""Faults of the place where files are, which are nobody's mistake in this program."""

_EPILOG = """\
exit codes: 0 ok, 1 failed or degraded, 2 usage, 3 a slot has no model, 4 not enrolled
settings: flag > environment (SHOAL_WINDOW_S, SHOAL_TRIAL_SECONDS, …) > STATE/config.toml > default
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything can import onnxruntime
    given = _parser().parse_args(arguments)
    set_up_log(given.log_level or "info", to_journal=logs_to_journal())
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        return command(given)
    except ShoalError as error:
        return _told(error, as_json=getattr(given, "json", False))
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        return _told(_of_disk(error, getattr(given, "state", None)), as_json=getattr(given, "json", False))


def _of_disk(error: OSError, state: Path | None) -> LocalError:
    where = error.filename or state or "the state folder"
    return LocalError(
        f"{where} can't be written or read: {error.strerror}",
        hint="see `df`, the mount and the folder's rights, or let `shoal-agent doctor --offline` look at them",
    )


def _told(error: ShoalError, *, as_json: bool) -> int:
    """Tell an error and what to do about it; return the exit code of its family."""
    if as_json:
        print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    else:
        sys.stderr.write(f"shoal-agent: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
    if isinstance(error, NotEnrolledError):
        return NOT_ENROLLED
    if isinstance(error, NoModelError):
        return NO_MODEL
    return USAGE if isinstance(error, CallerError) else FAILED


# Commands -------------------------------------------------------------------------------------------------------


def _join(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.enrolment import join  # noqa: PLC0415 - urllib3 and cryptography come with it
    from shoal_agent.machine import device_facts  # noqa: PLC0415

    folder = as_owner(state_folder(given.state))
    if given.if_needed and _joined_already(folder):
        return OK
    facts = device_facts()
    joined = join(
        given.url,
        join_token(given.token),
        folder,
        name=given.name,
        labels=_labels(given.label),
        facts={"platform": facts.platform, "onnxruntime": facts.onnxruntime},
        clock=time.time,
        again=given.again,
    )
    if given.json:
        print_json({"device": joined.identity.device, "state": joined.state, "url": joined.identity.url})
        return OK
    device, url = joined.identity.device, joined.identity.url
    if joined.state == "pending":
        print(
            f"This device is {device}. {url} gives it nothing until an operator says: shoalctl device accept {device}"
        )
    else:
        print(f"This device is {device}, {joined.state} by {url}.")
    print(f"Start it with: shoal-agent run --state {folder}")
    return OK


def _joined_already(folder: Path) -> bool:
    from shoal_agent.adapters.identity import IdentityFolder  # noqa: PLC0415 - msgspec comes with it
    from shoal_agent.adapters.succession import HEIR  # noqa: PLC0415 - as above

    holder = folder / "identity"
    try:  # a succession that was cut off is finished by the start
        device = IdentityFolder(holder if holder.exists() else folder / HEIR).load().device
    except NotEnrolledError:
        return False
    print(f"This device is {device} already.")
    return True


def _run(given: argparse.Namespace) -> int:
    if given.bundle is not None:
        return _run_bundle(given)
    from shoal_agent.agent import Agent  # noqa: PLC0415 - numpy and onnxruntime come with it
    from shoal_agent.service.notify import ServiceManager, serve_until  # noqa: PLC0415 - likewise
    from shoal_agent.serving.front import Front  # noqa: PLC0415 - only `run` needs it
    from shoal_agent.status_text import readiness  # noqa: PLC0415 - likewise

    state = as_owner(state_folder(given.state))
    if not state.exists():  # for good, where anything else that is wrong with a folder may pass
        raise NotEnrolledError(
            f"there is no state folder {state}", hint="name it by --state or SHOAL_STATE; `join` makes it"
        )
    settings = _settings(given, state)
    stop = stop_on_signals()
    address, watchdog_s = service_manager()
    manager = ServiceManager(address, watchdog_s=watchdog_s)
    agent = Agent(state, settings)
    agent.check_free()
    front = Front(settings.listen, insecure=given.insecure)
    front.open()  # before any model is loaded or anybody is told: a wrong address is found here
    try:
        with agent:  # from here on the stored models answer, or it is known that there is none
            for address in front.start(agent.slots, feedback=agent.labels):
                print(f"answering at {address}", flush=True)
            manager.ready(readiness(agent.status()))
            try:
                serve_until(
                    stop,
                    manager,
                    lambda: agent.faults() + front.faults(),
                    status=lambda: readiness(agent.status()),
                )
            finally:
                manager.stopping()
                front.stop()
    finally:
        front.stop()
    return OK


def _run_bundle(given: argparse.Namespace) -> int:
    from shoal_agent.machine import batching_of, known_facts  # noqa: PLC0415 - onnxruntime comes with these
    from shoal_agent.serving.standalone import RunOptions, serve_bundle  # noqa: PLC0415

    path = Path(given.bundle)
    settings = _settings(given, Path(given.state) if given.state else None)  # no file beside somebody's bundle
    serve_bundle(
        path,
        listen=settings.listen,
        stop=stop_on_signals(),
        announce=lambda it: print(f"{it.bundle} answers as {it.slot} at {it.url}", flush=True),
        options=RunOptions(settings.threads, known_facts(settings), batching_of(settings)),
        insecure=given.insecure,
    )
    return OK


def _status(given: argparse.Namespace) -> int:
    from shoal_agent.status import Health, health, stored_status  # noqa: PLC0415 - sqlite3 comes with it
    from shoal_agent.status_text import described  # noqa: PLC0415 - as above

    status = stored_status(state_folder(given.state))
    code = health(status)
    if code is Health.OK and not status["running"]:
        code = Health.DEGRADED  # all is well with what lies there, but nobody answers
    if given.json:
        print_json(status)
    else:
        print("\n".join(described(status)))
    return int(code)


def _rollback(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.blob_store import FolderBlobStore  # noqa: PLC0415
    from shoal_agent.adapters.identity import FolderLock  # noqa: PLC0415
    from shoal_agent.stored_model import chosen_slot, stored_state  # noqa: PLC0415
    from shoal_agent.updating.bundle_names import shown_stored  # noqa: PLC0415
    from shoal_agent.updating.desk import ask_roll_back  # noqa: PLC0415

    folder = as_owner(state_folder(given.state))
    slot = chosen_slot(stored_state(folder), given.slot)
    if FolderLock(folder).held_by_other():
        ask_roll_back(folder, slot, reason=given.reason, timeout_s=60.0)
    else:
        from shoal_agent.agent import Agent  # noqa: PLC0415 - numpy and onnxruntime come with it
        from shoal_agent.bootstrap import Overrides  # noqa: PLC0415

        with Agent(folder, overrides=Overrides(link=lambda _identity: None)) as agent:
            agent.roll_back(slot, reason=given.reason)
    active = stored_state(folder).slots[slot].active
    back = "without a model" if active is None else f"back at {shown_stored(FolderBlobStore(folder), active)}"
    print(f"Slot {slot} is {back}.")
    return OK


def _tuf_client(given: argparse.Namespace) -> int:
    from shoal_agent.adapters.tuf_conformance import run  # noqa: PLC0415 - tuf comes with it

    try:
        return run(given)
    except CallerError as error:
        _told(error, as_json=False)
        return FAILED  # the suite knows 0 and 1


# Arguments ------------------------------------------------------------------------------------------------------


class _Version(argparse.Action):
    """Looks for the version only when it is asked for: that costs a megabyte."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it and end."""
        from shoal_agent.machine import installed_version  # noqa: PLC0415

        print(f"shoal-agent, version {installed_version('shoal-agent')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "shoal-agent",
        description="Keeps the wanted models running on this device.",
        epilog=_EPILOG,
        formatter_class=plain,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is, and end")
    parser.add_argument("--log-level", choices=LEVELS, help="the least that is logged (SHOAL_LOG_LEVEL)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        added.add_argument("--state", metavar="DIR", help="state folder (SHOAL_STATE)")
        return added

    join = add("join", _join, "Let this device join a server.")
    join.add_argument("url", metavar="URL", help="of the server")
    join.add_argument("--token", metavar="T", help="join token (SHOAL_TOKEN, SHOAL_TOKEN_FILE)")
    join.add_argument("--name", metavar="ID", help="device id to ask for")
    join.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="shown at the server as said.KEY; selects nothing",
    )
    join.add_argument("--if-needed", action="store_true", help="do nothing when this device has joined already")
    join.add_argument("--again", action="store_true", help="give up the identity that --state has; its models stay")
    join.add_argument("--json", action="store_true")

    run = add("run", _run, "Run the agent until it is told to stop.")
    run.add_argument("--listen", metavar="WHERE", help="HOST:PORT, unix:PATH, both with a comma, or none")
    run.add_argument("--bundle", metavar="FILE", help="serve this bundle, without any server")
    run.add_argument("--config", metavar="FILE", type=Path, help="configuration file (SHOAL_CONFIG)")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, e.g. window_s=60")
    run.add_argument("--insecure", action="store_true", help="let other machines use the local API, without a login")

    status = add("status", _status, "Say what runs here; the exit code says whether all is well.")
    status.add_argument("--json", action="store_true")

    add_predict(add)

    rollback = add("rollback", _rollback, "Go back to the previous model, and don't take this one again by itself.")
    rollback.add_argument("--slot", metavar="NAME", help="which, where there are several")
    rollback.add_argument("--reason", default="asked for at the device")

    add_commands(add)
    add_inspection(add)
    add_service(add)
    _add_conformance(commands)
    return parser


def _add_conformance(commands: Any) -> None:
    """Add the hidden command by which the TUF conformance suite drives this client."""
    tuf = commands.add_parser("tuf-client")
    tuf.set_defaults(command=_tuf_client)
    for option in ("--metadata-dir", "--metadata-url", "--target-name", "--target-url", "--target-base-url"):
        tuf.add_argument(option, required=option == "--metadata-dir")
    tuf.add_argument("--target-dir")
    tuf.add_argument("--days-in-future", type=float, default=0.0)
    tuf.add_argument("--max-root-rotations", type=int, help=argparse.SUPPRESS)
    tuf.add_argument("action", choices=["init", "refresh", "download"])
    tuf.add_argument("trusted_root", nargs="?")


def _settings(given: argparse.Namespace, state: Path | None) -> Settings:
    """Put the settings of `run` together, and log as they say from here on."""
    flags = {"listen": given.listen, "log.level": given.log_level, **flags_of(given.set)}
    settings = load_settings(flags, state=state, config=given.config)
    set_up_log(settings.log_level, settings.log_format, to_journal=logs_to_journal())
    return settings


def _labels(entries: Sequence[str]) -> dict[str, str]:
    labels = dict(entry.partition("=")[::2] for entry in entries)
    if "" in labels or any("=" not in entry for entry in entries):
        raise SettingsError(f"--label expects KEY=VALUE, got {', '.join(entries)}")
    return labels


if __name__ == "__main__":
    sys.exit(main())
