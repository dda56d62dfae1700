"""The command set by which the TUF conformance suite drives a client: ``shoal-agent tuf-client``.

Owns three commands over this agent's own refresh, fetcher and verification, so that what the suite judges is what
devices do (https://github.com/theupdateframework/tuf-conformance, CLIENT-CLI.md). Not for operators. Only here are
delegated roles searched, by python-tuf: a device takes no release from one, as version 1 of Shoal's list has none.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from shoal_agent.adapters import tuf_client
from shoal_agent.adapters.durable import put
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.errors import TransportError
from shoal_protocol.errors import CallerError, TrustError, UnsignedError

PINNED = "pinned.json"
"""The root that ``init`` was given; ``root.json`` beside it is the newest, as the suite wants to see."""


def run(given: argparse.Namespace) -> int:
    """Carry out one command; errors are raised and become exit code 1."""
    folder = Path(given.metadata_dir)
    if given.action == "init":
        if given.trusted_root is None:
            raise CallerError("init needs the file of the trusted root")
        folder.mkdir(parents=True, exist_ok=True)
        raw = Path(given.trusted_root).read_bytes()
        put(folder / "root.json", raw)
        put(_pinned(folder), raw)
        return 0
    updater = _refresh(folder, given.metadata_url, days=given.days_in_future)
    if given.action == "download":
        _download(updater, folder, given)
    return 0


def _refresh(folder: Path, url: str | None, *, days: float) -> Updater:
    if not url:
        raise CallerError("refresh needs --metadata-url")
    now_ms = int((time.time() + days * 86_400) * 1000)
    return tuf_client.run_workflow(
        folder, http=_client(url), base=f"{url.rstrip('/')}/", bootstrap=_pinned(folder).read_bytes(), now_ms=now_ms
    )


def _download(updater: Updater, folder: Path, given: argparse.Namespace) -> None:
    """Fetch one target unless the very file is there already; its bytes are checked before it takes its place."""
    name, base = given.target_name or given.target_url, given.target_base_url
    if not (name and base and given.target_dir):
        raise CallerError("download needs --target-name, --target-base-url and --target-dir")
    target = tuf_client.delegated_target(updater, name, folder=folder)
    if target is None:
        raise UnsignedError(f"the signed list does not name {name!r}")
    place = Path(given.target_dir) / quote(name, safe="")
    if place.exists() and _fits(target, place.read_bytes()):
        return
    folder_part, _, last = name.rpartition("/")
    prefixed = f"{folder_part}/" if folder_part else ""
    url = f"{base.rstrip('/')}/{quote(f'{prefixed}{next(iter(target.hashes.values()))}.{last}')}"
    with _client(base).open("GET", url) as response:
        if response.status != 200:
            raise TransportError(f"{url}: the server answered {response.status}")
        raw = response.read(target.length + 1)
    if not _fits(target, raw):
        raise TrustError(f"{name}: other bytes came than the signed list names")
    place.parent.mkdir(parents=True, exist_ok=True)
    put(place, raw)


def _fits(target: TargetFile, raw: bytes) -> bool:
    try:
        target.verify_length_and_hashes(raw)
    except RepositoryError:
        return False
    return True


def _client(url: str) -> HttpClient:
    parts = urlsplit(url)
    return HttpClient(f"{parts.scheme}://{parts.netloc}", timeout_s=10.0)


def _pinned(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.{PINNED}"
