"""The commands of ``shoal-agent`` that look the device over, and make the agent a service of the system.

Arguments and their meaning; `shoal_agent.cli` turns errors into advice. Imports are lazy, as there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shoal_agent.adapters.folder_owner import as_owner
from shoal_agent.errors import SettingsError
from shoal_agent.settings import Settings, given_settings, misspelt_variables, names, of_file, parsed, state_folder
from shoal_agent.terminal import flags_of, print_json

OK, FAILED = 0, 1


def add_inspection(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that look and change nothing."""
    doctor = add(
        "doctor", _doctor, "Check all that the agent needs, and say what to do; exit code 1: something is wrong."
    )
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument("--config", metavar="FILE", type=Path, help="configuration file (SHOAL_CONFIG)")
    doctor.add_argument("--offline", action="store_true", help="only what needs no network")
    doctor.add_argument(
        "--take-over", action="store_true", help="log in at the broker even if that interrupts the running agent"
    )

    config = add("config", _config, "Show the settings and where each comes from, or check a configuration file.")
    config.add_argument("action", choices=["show", "check"], help="show what `run` would use, or check a FILE")
    config.add_argument("file", metavar="FILE", nargs="?", type=Path, help="to check")
    config.add_argument("--origin", action="store_true", help="show flag, variable or FILE:LINE of each")
    config.add_argument("--config", metavar="FILE", type=Path, help="configuration file (SHOAL_CONFIG)")
    config.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for `run`")
    config.add_argument("--json", action="store_true")


def add_service(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that make the agent a service of the system."""
    install = add("install", _install, "Make the agent a service of systemd; needs root.")
    install.add_argument("--systemd", action="store_true", required=True, help="the service manager; there is no other")
    install.add_argument("--name", default="shoal-agent", help="of the service, and of its folder below /var/lib")
    install.add_argument("--user", default="shoal", help="whom it runs as; made when missing")
    install.add_argument("--listen", metavar="WHERE", help="as for `run`")
    install.add_argument("--config", metavar="FILE", type=Path, help="as for `run`")
    install.add_argument("--memory-max", default="", metavar="SIZE", help="512M or 40%%; beyond it it is restarted")
    install.add_argument("--cpu-quota", default="", metavar="SHARE", help="of one processor, such as 150%%")
    install.add_argument("--device", action="append", default=[], metavar="PATH", help="an accelerator to let in")
    install.add_argument("--url", help="of the server, to join at the first start with --token-file")
    install.add_argument(
        "--token-file", metavar="FILE", type=Path, help="holds the join token; root's alone, mode 0600"
    )
    install.add_argument("--program", metavar="PATH", help="the shoal-agent to run; this one when left out")
    install.add_argument("--now", action="store_true", help="start it at once")
    install.add_argument("--print", action="store_true", help="print the unit, do nothing")
    install.add_argument("--dry-run", action="store_true", help="print the steps, do nothing")
    uninstall = add("uninstall", _uninstall, "Take the service away; the state folder stays.")
    uninstall.add_argument("--systemd", action="store_true", help="accepted for symmetry with install")
    uninstall.add_argument("--name", default="shoal-agent", help="of the service")
    uninstall.add_argument("--dry-run", action="store_true", help="print the steps, do nothing")


def _doctor(given: argparse.Namespace) -> int:
    from shoal_agent.doctor import Chart, examine, is_well  # noqa: PLC0415 - ssl, sqlite3 and numpy come with it

    chart = Chart(
        as_owner(state_folder(given.state)), config=given.config, offline=given.offline, take_over=given.take_over
    )
    found = examine(chart)
    if given.json:
        print_json({"ok": is_well(found), "checks": [finding.document() for finding in found]})
    else:
        for finding in found:
            print(f"{finding.state:8}{finding.check:18} {finding.came}")
            if finding.advice:
                print(f"{'':8}{'':18} -> {finding.advice}")
    return OK if is_well(found) else FAILED


def _config(given: argparse.Namespace) -> int:
    return _config_check(given) if given.action == "check" else _config_show(given)


def _config_check(given: argparse.Namespace) -> int:
    if given.file is None:
        raise SettingsError("which file is to be checked?", hint="shoal-agent config check FILE")
    found = of_file(given.file)
    parsed(found)
    if given.json:
        print_json({"file": str(given.file), "ok": True, "settings": sorted(found)})
    else:
        print(f"{given.file}: {len(found)} settings, all known and well-formed")
    return OK


def _config_show(given: argparse.Namespace) -> int:
    """Print what `run` would use with the same flags and environment."""
    if given.file is not None:
        raise SettingsError("`config show` takes no FILE", hint="a file to look through is given by --config FILE")
    flags = {"log.level": given.log_level, **flags_of(given.set)}
    found = given_settings(flags, state=state_folder(given.state), config=given.config)
    settings = parsed(found)
    rows = [
        (name, getattr(settings, attribute), found[name].source if name in found else "default")
        for name, attribute in names().items()
    ]
    misspelt, faults = misspelt_variables(), _hook_faults(settings)
    if given.json:
        shown = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        print_json({"settings": shown, "misspelt": misspelt, "faults": faults})
        return OK
    for name, value, origin in rows:
        told = ", ".join(value) if isinstance(value, tuple) else "none" if value is None else f"{value}"
        print(f"{name:28}{told:27} {origin if given.origin else ''}".rstrip())
    for wrong, meant in misspelt.items():
        sys.stderr.write(f"shoal-agent: {wrong} is no setting's variable; is {meant} meant?\n")
    for fault in faults:
        sys.stderr.write(f"shoal-agent: {fault}\n")
    return OK


def _hook_faults(settings: Settings) -> list[str]:
    from shoal_agent.hook_programs import faults, programs  # noqa: PLC0415 - msgspec comes with it

    return faults(programs(settings))


def _install(given: argparse.Namespace) -> int:
    from shoal_agent.service.installation import carry_out, installation  # noqa: PLC0415 - only these two need it
    from shoal_agent.service.unit import Unit, unit_text  # noqa: PLC0415 - likewise
    from shoal_agent.serving.listen import parse_listens  # noqa: PLC0415 - likewise

    parse_listens(given.listen or "none")  # what is wrong with it would else be told in the journal only
    unit = Unit(
        program=_program(given.program),
        user=given.user,
        state=given.name,
        listen=given.listen or "",
        config=str(given.config.resolve()) if given.config else "",
        memory_max=given.memory_max,
        cpu_quota=given.cpu_quota,
        devices=tuple(given.device),
        token_file=str(given.token_file.resolve()) if given.token_file else "",
        url=given.url or "",
    )
    if given.print:
        sys.stdout.write(unit_text(unit))
        return OK
    steps = installation(unit, name=given.name, start_now=given.now)
    code = _steps(steps, given, carry_out)
    if not unit.url and not given.dry_run:
        print(f"Unless this device has joined: shoal-agent join URL --token … --state /var/lib/{given.name}")
    if not given.now and not given.dry_run:
        print(f"Start it with: systemctl start {given.name}")
    return code


def _uninstall(given: argparse.Namespace) -> int:
    from shoal_agent.service.installation import carry_out, removal  # noqa: PLC0415 - as above

    code = _steps(removal(name=given.name), given, carry_out)
    if given.dry_run:
        return code
    print(f"The state folder /var/lib/{given.name} and the user stay.")
    return code


def _steps(steps: Sequence[Any], given: argparse.Namespace, carry_out: Callable[[Sequence[Any]], None]) -> int:
    if given.dry_run:
        print("\n".join(map(str, steps)))
    else:
        carry_out(steps)
    return OK


def _program(given: str | None) -> tuple[str, ...]:
    """Return the command of the service: this very program."""
    if given:
        return (given,)
    called = Path(sys.argv[0])
    return (str(called.absolute()),) if called.name == "shoal-agent" else (sys.executable, "-m", "shoal_agent.cli")
