"""Every setting of the agent, in one place, and the only module that reads the environment.

Order: flag > environment > file > default. Each setting has one dotted name: ``trial.seconds`` is ``[trial] seconds``
in the TOML file (``SHOAL_CONFIG`` or ``config.toml`` in the state folder) and ``SHOAL_TRIAL_SECONDS`` outside it.
A secret can also be given as a file, by the name with ``_FILE`` appended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from shoal_agent import setting_values as parse
from shoal_agent.configuration_file import read_configuration
from shoal_agent.domain.providers import parse_providers
from shoal_agent.errors import SettingsError
from shoal_agent.logs import FORMATS, LEVELS

DEFAULT_STATE: Final = "/var/lib/shoal-agent"
CONFIG_NAME: Final = "config.toml"
_WINDOWS: Final = "windows of the week, such as Mon-Fri 22:00-04:00; Sat,Sun 00:00-24:00 utc"


class Setting(msgspec.Struct, frozen=True):
    """What is to be known of one field of `Settings`.

    Attributes:
        default: Its value where nobody gives one.
        name: Dotted, as in the file.
        parse: Makes the value of a text, or raises ValueError.
        expects: What `parse` takes, in words.
        about: What it is for, in a sentence or two.
    """

    default: Any
    name: str
    parse: Callable[[str], Any]
    expects: str
    about: str


_in_order: list[Setting] = []


def _setting(default: Any, name: str, parse: Callable[[str], Any], expects: str, about: str) -> Any:
    """Note what is to be known of the next field, and return its default."""
    _in_order.append(Setting(default, name, parse, expects, about))
    return default


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an integrator can set; see docs/reference/agent-configuration.md."""

    window_s: float = _setting(
        300.0, "window_s", parse.positive, "seconds above 0", "Length of the windows over which the device sums up."
    )
    learning_s: float | None = _setting(
        None, "learning_s", parse.positive, "seconds above 0",
        "For so long the first rows of a bundle without data are looked at; the default is three windows. A day where "
        "nights differ from days.",
    )  # fmt: skip
    spool_bytes: int = _setting(
        64 * 1024 * 1024, "spool_bytes", parse.count, "bytes, 1 or more",
        "Room for what the server has not acknowledged yet; beyond it windows that were never sent are merged into "
        "coarser ones, then the oldest are dropped and counted.",
    )  # fmt: skip
    poll_s: float | None = _setting(
        None, "poll_s", parse.positive, "seconds above 0",
        "Time between two questions over HTTP while MQTT is down; the default comes from the server.",
    )  # fmt: skip
    download_max_bytes_per_s: float | None = _setting(
        None,
        "download.max_bytes_per_s",
        parse.positive,
        "bytes per second above 0",
        "Cap of the bandwidth of downloads.",
    )
    download_windows: str = _setting(
        "", "download.windows", parse.windows, _WINDOWS,
        "When the files of a new model are fetched; a download under way pauses outside of them. Empty: always.",
    )  # fmt: skip
    activation_windows: str = _setting(
        "", "activation.windows", parse.windows, _WINDOWS,
        "When a new model is tested and activated. A return to a model that this device can go back to, and the first "
        "model of an empty slot, wait for none. Empty: always.",
    )  # fmt: skip
    activation_lock_file: str = _setting(
        "", "activation.lock_file", parse.absolute_path, "an absolute path",
        "While this file exists no new model is tested or activated: for applications that say \"not now\".",
    )  # fmt: skip
    hooks_veto: str = _setting(
        "", "hooks.veto", parse.absolute_path, "an absolute path",
        "Executable that is asked before a new model is tested and again before it is activated: 0 go on, 75 not now.",
    )  # fmt: skip
    hooks_on_activate: str = _setting(
        "",
        "hooks.on_activate",
        parse.absolute_path,
        "an absolute path",
        "Executable that is called once a new model answers.",
    )
    hooks_on_rollback: str = _setting(
        "",
        "hooks.on_rollback",
        parse.absolute_path,
        "an absolute path",
        "Executable that is called once a slot went back.",
    )
    hooks_timeout_s: float = _setting(
        10.0,
        "hooks.timeout_s",
        parse.hook_time,
        "seconds above 0, at most 300",
        "So long a hook may take, then it is killed.",
    )
    hooks_retry_s: float = _setting(
        60.0, "hooks.retry_s", parse.positive, "seconds above 0", "So long after a veto the hook is asked again."
    )
    download_mirrors: tuple[str, ...] = _setting(
        (), "download.mirrors", parse.addresses, "addresses that begin with http:// or https://, with commas between",
        "Where models are fetched before the server is asked: caches or copies of its registry. They need no trust, "
        "and get no credentials.",
    )  # fmt: skip
    download_patch_bytes: int | None = _setting(
        None, "download.patch_bytes", parse.size, "bytes, 0 or more",
        "Memory that patching a stored model into a new one may take; 0: none is patched. The default is an eighth of "
        "this machine's memory, at most 256 MiB.",
    )  # fmt: skip
    tls_client_cert: str = _setting(
        "",
        "tls.client_cert",
        str,
        "a file",
        "Certificate of this device (PEM), for a broker that asks for one (mutual TLS).",
    )
    tls_client_key: str = _setting("", "tls.client_key", str, "a file", "Its key (PEM).")
    tls_broker_ca: str = _setting(
        "", "tls.broker_ca", str, "a file",
        "Authority (PEM) that signed the MQTT broker's certificate, where it is not the server's own or the system's.",
    )  # fmt: skip
    trust_refresh_s: float = _setting(
        21_600.0, "trust.refresh_s", parse.positive, "seconds above 0",
        "Time between two looks at the signed list for revoked bundles; the server can ask for one sooner.",
    )  # fmt: skip
    trial_predictions: int = _setting(
        100,
        "trial.predictions",
        parse.count,
        "a count, 1 or more",
        "So many predictions (calls, of however many rows) end a new model's trial.",
    )
    trial_seconds: float = _setting(
        600.0,
        "trial.seconds",
        parse.positive,
        "seconds above 0",
        "So many seconds end a trial, whatever was predicted.",
    )
    trial_call_s: float = _setting(
        60.0,
        "trial.call_s",
        parse.positive,
        "seconds above 0",
        "A call on trial that takes longer is cut off and fails it.",
    )
    calls_longest_s: float = _setting(
        600.0,
        "calls.longest_s",
        parse.span_or_none,
        "seconds from 0 on",
        "A call after the trial that takes longer is cut off, and the model loaded again; 0: none is.",
    )
    trial_max_error_rate: float = _setting(
        0.02,
        "trial.max_error_rate",
        parse.share,
        "a share, 0 to 1",
        "Largest share of predictions on trial that may fail.",
    )
    preflight_seconds: float = _setting(
        120.0,
        "preflight.seconds",
        parse.positive,
        "seconds above 0",
        "Wall clock that a new model's self-test may take.",
    )
    threads: int | None = _setting(
        None, "threads", parse.count, "a count, 1 or more", "Threads of onnxruntime; the default comes from the bundle."
    )
    providers: tuple[str, ...] | None = _setting(
        None, "providers", parse_providers, "auto, or names with commas between, such as cuda, cpu",
        "Execution providers of onnxruntime to use for every model, the best first; the default, auto, follows each "
        "bundle. What this onnxruntime lacks, or can't start, is left out; `shoal-agent status` tells.",
    )  # fmt: skip
    activation_mode: str = _setting(
        "beside", "activation.mode", parse.activation, "beside or stop-then-load",
        "Whether a new model is tested and loaded beside the active one, or after that was ended: for devices that "
        "can't hold two. Then the slot does not answer meanwhile, and runs no shadow.",
    )  # fmt: skip
    batching_max_rows: int | None = _setting(
        None, "batching.max_rows", parse.count, "a count, 1 or more",
        "Calls at the same time are answered by one run of so many rows at most; the default: each by itself.",
    )  # fmt: skip
    batching_max_delay_ms: float = _setting(
        2.0, "batching.max_delay_ms", parse.duration, "milliseconds, 0 or more",
        "So long a call waits for the call under way at most, to be answered with others; a call alone never waits.",
    )  # fmt: skip
    feedback_days: float = _setting(
        30.0, "feedback.days", parse.positive, "days above 0",
        "So long after a prediction its true label is still taken.",
    )  # fmt: skip
    shadow_share: float = _setting(
        0.1, "shadow.share", parse.share, "a share, 0 to 1",
        "Share of the predictions that a shadow model sees too, where the server wants one.",
    )  # fmt: skip
    listen: str = _setting(
        "127.0.0.1:8130", "listen", str, "HOST:PORT, unix:PATH or none",
        "Where the local HTTP API listens; several addresses are separated by commas.",
    )  # fmt: skip
    log_level: str = _setting(
        "info", "log.level", parse.level, ", ".join(LEVELS), "The least that is logged; also `--log-level`."
    )
    log_format: str = _setting(
        "text", "log.format", parse.form, " or ".join(FORMATS),
        "Lines for people, or one JSON object a line. In systemd's journal text carries priorities instead of times.",
    )  # fmt: skip
    resend_s: float = _setting(
        30.0,
        "resend_s",
        parse.positive,
        "seconds above 0",
        "A message without acknowledgement is sent again after so long.",
    )
    keepalive_s: int = _setting(
        60, "keepalive_s", parse.keep_alive, "seconds, 5 to 1200",
        "MQTT: after so long without a word a sign of life is sent; a line that gives no answer within as long again "
        "is dropped. Shorter finds dead lines sooner and costs more data.",
    )  # fmt: skip
    reconnect_max_s: float = _setting(
        60.0,
        "reconnect_max_s",
        parse.positive,
        "seconds above 0",
        "Longest wait between two tries to reach the server.",
    )
    retry_max_s: float = _setting(
        300.0, "retry_max_s", parse.positive, "seconds above 0", "Longest wait between two tries of a failed transfer."
    )

    @property
    def client_certificate(self) -> tuple[Path, Path] | None:
        """Certificate and key of this device; None where it has none."""
        if not self.tls_client_cert:
            return None
        return Path(self.tls_client_cert), Path(self.tls_client_key or self.tls_client_cert)


KNOWN: Final[Mapping[str, Setting]] = dict(zip(Settings.__struct_fields__, _in_order, strict=True))
"""Every setting by its field, in the order of the reference page."""


def names() -> dict[str, str]:
    """Return each setting's dotted name and its field."""
    return {setting.name: field for field, setting in KNOWN.items()}


def variable(name: str) -> str:
    """Return the environment variable of a setting.

    >>> variable("trial.seconds")
    'SHOAL_TRIAL_SECONDS'
    """
    return "SHOAL_" + name.replace(".", "_").upper()


def state_folder(flag: str | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the state folder: ``--state``, else ``SHOAL_STATE``, else the system's."""
    environment = os.environ if environment is None else environment
    return Path(flag or environment.get("SHOAL_STATE") or DEFAULT_STATE).expanduser()


def service_manager(environment: Mapping[str, str] | None = None) -> tuple[str, float | None]:
    """Return the address of systemd's notify socket, and its patience, seconds (sd_watchdog_enabled(3))."""
    environment = os.environ if environment is None else environment
    patience_us = environment.get("WATCHDOG_USEC", "")
    mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    patience_s = int(patience_us) / 1e6 if mine and patience_us.isascii() and patience_us.isdigit() else None
    return environment.get("NOTIFY_SOCKET", ""), patience_s


def join_token(flag: str | None, environment: Mapping[str, str] | None = None) -> str:
    """Return the join token: ``--token``, else ``SHOAL_TOKEN``, else the content of the file ``SHOAL_TOKEN_FILE``.

    Raises:
        SettingsError: There is none, or the file can't be read.
    """
    environment = os.environ if environment is None else environment
    if flag or environment.get("SHOAL_TOKEN"):
        return flag or environment["SHOAL_TOKEN"]
    path = environment.get("SHOAL_TOKEN_FILE")
    if not path:
        raise SettingsError("no join token was given", hint="give --token, SHOAL_TOKEN or SHOAL_TOKEN_FILE")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"SHOAL_TOKEN_FILE can't be read: {error}") from error


class Given(msgspec.Struct, frozen=True):
    """A setting that somebody gave.

    Attributes:
        value: As it was given.
        source: Where: ``--set``, the name of a variable, or ``FILE:LINE``.
    """

    value: Any
    source: str


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    state: Path | None,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Put the settings together.

    Args:
        flags: By dotted name; none values count as not given.
        state: The state folder, where ``config.toml`` is looked for; none: nowhere.
        config: The configuration file (``--config``).
        environment: Instead of the process's.

    Raises:
        SettingsError: Names every setting that is unknown or malformed.
    """
    return parsed(given_settings(flags, state=state, config=config, environment=environment))


def given_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    state: Path | None,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Given]:
    """Return what was given, by dotted name, of each setting the word that counts; the arguments of `load_settings`.

    Raises:
        SettingsError: The file can't be read, or does not parse.
    """
    environment = os.environ if environment is None else environment
    path = config or (Path(environment["SHOAL_CONFIG"]) if environment.get("SHOAL_CONFIG") else None)
    if path is None and state is not None and (state / CONFIG_NAME).exists():
        path = state / CONFIG_NAME
    given = of_file(path) if path else {}
    for name in names():
        if environment.get(variable(name)):
            given[name] = Given(environment[variable(name)], variable(name))
    given |= {name: Given(value, "the command line") for name, value in (flags or {}).items() if value is not None}
    return given


def of_file(path: Path) -> dict[str, Given]:
    """Return what a configuration file gives.

    Raises:
        SettingsError: There is no such file, it can't be read, or it does not parse.
    """
    try:
        entries = read_configuration(path)
    except FileNotFoundError as error:
        raise SettingsError(f"the configuration file {path} does not exist") from error
    return {name: Given(entry.value, f"{path}:{entry.line}") for name, entry in entries.items()}


def parsed(given: Mapping[str, Given]) -> Settings:
    """Turn what was given into settings.

    Raises:
        SettingsError: Names every setting that is unknown or malformed, and the nearest right name.
    """
    known = names()
    values: dict[str, Any] = {}
    faults = []
    unknown = False
    for name, one in given.items():
        field = known.get(name)
        if field is None:
            unknown = True
            meant = nearest(name)
            faults.append(f"{one.source} names {name!r}, which is no setting{f'; is {meant} meant?' if meant else ''}")
            continue
        try:
            values[field] = KNOWN[field].parse(_text(name, one.value))
        except ValueError:
            faults.append(f"{one.source} gives {name} = {one.value!r}, expected {KNOWN[field].expects}")
    if faults:
        raise SettingsError("; ".join(faults), hint=f"settings are: {', '.join(known)}" if unknown else "")
    return Settings(**values)


def _text(name: str, value: Any) -> str:
    """Return a value as it would stand in a variable; a list of TOML becomes its words."""
    if isinstance(value, list):
        return ("; " if name.endswith("windows") else ", ").join(map(str, value))
    return str(value)


def nearest(name: str) -> str | None:
    """Return the setting that is most likely meant by a wrong name; none: nothing is like it."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    known = list(names())
    short = {entry.rpartition(".")[2]: entry for entry in known}
    close = get_close_matches(name, known, n=1) or get_close_matches(name.rpartition(".")[2], short, n=1)
    return short.get(close[0], close[0]) if close else None


def misspelt_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return variables that look like a setting's and are none, each with the one that is likely meant.

    Only variables that are much alike are named: others of the name belong to other programs of Shoal.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - as above

    environment = os.environ if environment is None else environment
    known = [variable(name) for name in names()]
    ours = {*known, "SHOAL_STATE", "SHOAL_CONFIG", "SHOAL_TOKEN", "SHOAL_TOKEN_FILE"}
    others = (key for key in environment if key.startswith("SHOAL_") and key not in ours)
    return {key: close[0] for key in others if (close := get_close_matches(key, known, n=1, cutoff=0.85))}


def logs_to_journal(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether standard error is systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    environment = os.environ if environment is None else environment
    try:
        error = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{error.st_dev}:{error.st_ino}"
