"""What `shoal-server doctor` looks at: this machine, the server's folder, its database, its keys, the running server.

Owns the checks. Each is independent: one that fails doesn't hide the others. Nothing is changed.
"""

import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from shoal_protocol.errors import ShoalError
from shoal_server.registry.onnx_check import OnnxChecker
from shoal_server.registry.refusals import Fault
from shoal_server.registry.trust_keys import ONLINE_ROLES, ROLES
from shoal_server.runtime_file import read_runtime
from shoal_server.storage.database import Database
from shoal_server.storage.settings import Settings

_LEAST_FREE_BYTES = 1024**3
_NOT_EARLIER = 1_750_000_000  # mid 2025: a clock before this was never set


@dataclass(frozen=True)
class Finding:
    """The answer of one check."""

    name: str
    ok: bool
    what: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Do all checks."""
    checks: dict[str, Callable[[Settings], Finding]] = {
        "settings": _settings,
        "clock": _clock,
        "data folder": _data_folder,
        "database": _database,
        "models": _blobs,
        "signing keys": _keys,
        "model checker": _checker,
        "running server": _running,
    }
    return [_guarded(name, check, settings) for name, check in checks.items()]


def _guarded(name: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except ShoalError as error:
        return Finding(name, ok=False, what=error.message, hint=error.hint)
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding
        return Finding(name, ok=False, what=f"{type(error).__name__}: {error}")


def _settings(settings: Settings) -> Finding:
    settings.check()
    return Finding("settings", ok=True, what=f"listen {settings.listen}, broker {settings.broker.rpartition('@')[2]}")


def _clock(_settings: Settings) -> Finding:
    now = time.time()
    what = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return Finding(
        "clock", ok=now > _NOT_EARLIER, what=what, hint="" if now > _NOT_EARLIER else "set this machine's clock"
    )


def _data_folder(settings: Settings) -> Finding:
    folder = settings.data
    if not folder.is_dir():
        return Finding("data folder", ok=True, what=f"{folder} isn't there yet; the first start makes it")
    with tempfile.TemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free
    enough = free >= _LEAST_FREE_BYTES
    hint = "" if enough else "make room: bundles and windows are kept here"
    return Finding("data folder", ok=enough, what=f"{folder} is writable, {free / 1024**3:.1f} GB free", hint=hint)


def _database(settings: Settings) -> Finding:
    if not settings.database and not (settings.data / "shoal.db").exists():
        return Finding("database", ok=True, what="there is none yet; the first start makes it")
    import_module("shoal_server.tables")  # all of them, to compare the schema with
    from shoal_server.storage.migrations import differences  # noqa: PLC0415 - alembic is slow to import

    database = Database(settings.database_url)
    try:
        with database.connection() as connection:
            pending = differences(connection)
    finally:
        database.close()
    if pending:
        hint = "start the server once: it brings the schema up to date"
        return Finding("database", ok=False, what=f"the schema differs in {len(pending)} places", hint=hint)
    return Finding("database", ok=True, what=f"{database.dialect} answers and its schema is up to date")


def _blobs(settings: Settings) -> Finding:
    if not settings.blobs:
        return Finding("models", ok=True, what="in the data folder")
    from shoal_server.bootstrap.parts import open_blobs  # noqa: PLC0415 - everything hangs on it

    open_blobs(settings).close()
    return Finding("models", ok=True, what=f"{settings.blobs} answers and may be written")


def _keys(settings: Settings) -> Finding:
    folder = settings.data / "keys"
    if not folder.is_dir():
        return Finding("signing keys", ok=True, what="there are none yet; the first start makes them")
    both_away = not (folder / "root.pem").exists() and not (folder / "targets.pem").exists()
    roles = ONLINE_ROLES if both_away else ROLES
    missing = [role for role in roles if not (folder / f"{role}.pem").is_file()]
    if missing:
        hint = "restore the folder from the same backup as the database"
        return Finding("signing keys", ok=False, what=f"missing: {', '.join(missing)}", hint=hint)
    readable = [path.name for path in folder.iterdir() if path.stat().st_mode & 0o077]
    if readable:
        return Finding(
            "signing keys", ok=False, what=f"others can read {', '.join(readable)}", hint=f"chmod 600 {folder}/*"
        )
    mode = "release keys: only the online keys are here" if both_away else "development trust: every key is here"
    return Finding("signing keys", ok=True, what=f"all there, and only this user can read them ({mode})")


def _checker(_settings: Settings) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.onnx"
        probe.write_bytes(b"no model")
        found = OnnxChecker().check(probe)
    works = isinstance(found, Fault) and found.rule == "onnx_parses"
    what = "a child process reads models under its limits" if works else f"unexpected answer: {found}"
    return Finding("model checker", ok=works, what=what)


def _running(settings: Settings) -> Finding:
    runtime = read_runtime(settings.data)
    if runtime is None:
        return Finding("running server", ok=True, what="no server runs on this folder")
    try:
        trusting = ssl.create_default_context(cafile=runtime.ca)
        with urllib.request.urlopen(f"{runtime.url}/readyz", timeout=5, context=trusting) as answer:  # noqa: S310 - ours
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return Finding("running server", ok=False, what=f"{runtime.url} is not ready: {error.read().decode()}")
    except OSError as error:
        hint = "it may have been killed; starting it again is safe"
        return Finding("running server", ok=False, what=f"{runtime.url} doesn't answer: {error}", hint=hint)
    return Finding("running server", ok=True, what=f"{runtime.url} is ready: {text}")
