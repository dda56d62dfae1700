"""The text of the systemd unit: what runs, as whom, and what it is kept from.

A pure function of its options. The agent needs its state folder, the network and its processors; everything else is
taken away. Two usual restrictions are left out on purpose: ``MemoryDenyWriteExecute``, because execution providers
compile kernels at run time, and ``PrivateDevices`` where an accelerator is used (`Unit.devices`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from shoal_agent.errors import SettingsError

DEFAULT_NAME: Final = "shoal-agent"
WATCHDOG_S: Final = 120
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_MEMORY: Final = re.compile(r"[0-9]+[KMGT]?|[0-9]+(\.[0-9]+)?%|infinity")
_QUOTA: Final = re.compile(r"[1-9][0-9]*%")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a unit is made of.

    Attributes:
        program: The command, absolute: ``/opt/shoal/bin/shoal-agent``, or several words.
        user: Whom it runs as.
        state: Name of its folder below ``/var/lib``.
        listen: Where the local interface listens; empty: as configured.
        config: The configuration file; empty: ``config.toml`` in the state folder.
        memory_max: ``512M``, ``40%``: beyond it the kernel ends the agent, which systemd starts again; empty: no limit.
        cpu_quota: ``150%`` of one processor; empty: no limit.
        devices: Accelerators that are let in, such as ``/dev/nvidia0``.
        token_file: The join token, handed on by LoadCredential and used once at the first start; empty: joined already.
        url: Of the server to join with the token.

    Raises:
        SettingsError: A value does not belong in a unit.
    """

    program: tuple[str, ...]
    user: str = "shoal"
    state: str = "shoal-agent"
    listen: str = ""
    config: str = ""
    memory_max: str = ""
    cpu_quota: str = ""
    devices: tuple[str, ...] = ()
    token_file: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        checks = (
            ("--user", self.user, _USER, "a user's name"),
            ("--name", self.state, _NAME, "letters, digits, _ and -"),
            ("--memory-max", self.memory_max or "0", _MEMORY, "bytes as 512M, a share as 40%, or infinity"),
            ("--cpu-quota", self.cpu_quota or "1%", _QUOTA, "a share of one processor, as 150%"),
        )
        faults = [
            f"{flag} {value!r}: expected {what}" for flag, value, form, what in checks if not form.fullmatch(value)
        ]
        words = (*self.program, self.listen, self.config, self.token_file, self.url, *self.devices)
        faults += [f"{word!r} has a line break" for word in words if "\n" in word or "\r" in word]
        if bool(self.token_file) != bool(self.url):
            faults.append("--token-file and --url go together: the first start joins with both")
        if faults:
            raise SettingsError("; ".join(faults), hint="shoal-agent install --help")


def unit_text(unit: Unit) -> str:
    """Return the unit file."""
    state = f"/var/lib/{unit.state}"
    run = [*unit.program, "run", "--state", state]
    run += ["--listen", unit.listen] if unit.listen else []
    run += ["--config", unit.config] if unit.config else []
    lines = [_HEAD.format(state=state)]
    if unit.token_file:
        join = [*unit.program, "join", unit.url, "--state", state, "--if-needed"]
        lines += [
            f"LoadCredential=join-token:{_escaped(unit.token_file)}",
            "Environment=SHOAL_TOKEN_FILE=%d/join-token",
            f"ExecStartPre={_command(join)}",
        ]
    lines += [
        f"ExecStart={_command(run)}",
        f"User={unit.user}",
        f"Group={unit.user}",
        f"StateDirectory={unit.state}",
        f"RuntimeDirectory={unit.state}",
        _SERVICE.format(watchdog_s=WATCHDOG_S),
    ]
    lines += [f"MemoryMax={unit.memory_max}"] if unit.memory_max else []
    lines += [f"CPUQuota={unit.cpu_quota}"] if unit.cpu_quota else []
    lines.append(_HARDENING)
    if unit.devices:
        # no PrivateUsers either: it would take the groups away that may use the devices
        lines += ["DevicePolicy=closed", *(f"DeviceAllow={_escaped(device)} rw" for device in unit.devices)]
    else:
        lines += ["PrivateDevices=yes", "PrivateUsers=yes"]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def _command(words: list[str]) -> str:
    """Return words as systemd reads them (systemd.service(5), command lines; systemd.syntax(7), quoting)."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    plain = _escaped(word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$"))
    return plain if word and not set(word) & set(" \t\"'\\;") else f'"{plain}"'


def _escaped(word: str) -> str:
    return word.replace("%", "%%")


_HEAD = """\
# Written by `shoal-agent install --systemd`; changes of yours belong into a drop-in: systemctl edit.
[Unit]
Description=Shoal agent: keeps the wanted models running on this device
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target time-sync.target
# for ever: a device that nobody watches must not be given up
StartLimitIntervalSec=0
RequiresMountsFor={state}

[Service]
Type=notify"""

_SERVICE = """\
StateDirectoryMode=0700
RuntimeDirectoryMode=0755
NotifyAccess=main
WatchdogSec={watchdog_s}
Restart=always
RestartSec=5
# 4: this folder belongs to no device yet; 2: a setting is wrong. Neither heals by itself
RestartPreventExitStatus=2 4
# the self-test of a model may hold it up at the start and at the end
TimeoutStartSec=300
TimeoutStopSec=60
# a self-test that runs out of memory is ended; the agent lives
OOMPolicy=continue
Environment=PYTHONUNBUFFERED=1"""

_HARDENING = """\
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateTmp=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# the self-test of a model limits its own memory and processor time, and onnxruntime places its threads
SystemCallFilter=prlimit64 setrlimit setpriority sched_setaffinity sched_setscheduler"""
