"""The TUF client of python-tuf, with our own fetcher, synced files and reference time.

The only module of the agent that imports tuf. Follows the client workflow of The Update Framework specification 1.0,
section 5; downloads of targets are our own (`shoal_agent.adapters.download`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from shoal_agent.adapters.durable import put, sync_folder
from shoal_agent.adapters.judge import StoredList
from shoal_agent.errors import TransportError
from shoal_agent.ports import DocumentSource
from shoal_protocol.errors import ExpiredError, RollbackError, TrustError, UnsignedError
from shoal_protocol.trust.targets import signed_list


class _Fetcher(FetcherInterface):
    def __init__(self, http: DocumentSource) -> None:
        self._http = http

    def _fetch(self, url: str) -> Iterator[bytes]:
        with self._http.open("GET", url) as response:
            if response.status >= 400:
                # the walk over roots ends by 403 or 404 only, so the status must be told (tuf.ngclient.Updater)
                raise exceptions.DownloadHTTPError(f"{url}: the server answered {response.status}", response.status)
            while chunk := response.read1(1 << 16):
                yield chunk


class _Updater(Updater):
    """Python-tuf's, which renames files that it never syncs; it offers no other way to store them."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Store one verified file durably; one that is there already (the pinned root, at each start) stays."""
        path = Path(filename)
        if not path.is_file() or path.read_bytes() != data:
            put(path, data)


def refresh(folder: Path, *, http: DocumentSource, bootstrap: bytes, now_ms: int) -> StoredList:
    """Run the client workflow once and sync what it stored.

    Args:
        folder: Cache of the client.
        http: The server, or a parcel; metadata is at ``/trust/``.
        bootstrap: The pinned root.
        now_ms: Reference time for expiry.

    Raises:
        TransportError: A download failed.
        TrustError: The metadata can't be trusted.
    """
    run_workflow(folder, http=http, base=f"{http.url}/trust/", bootstrap=bootstrap, now_ms=now_ms)
    stored = stored_list(folder, bootstrap=bootstrap)
    if stored is None:
        raise TrustError("the signed list is missing after a refresh")
    return stored


def run_workflow(folder: Path, *, http: DocumentSource, base: str, bootstrap: bytes, now_ms: int) -> Updater:
    """Run the client workflow of the specification, sections 5.3 to 5.6, and sync what it stored.

    Args:
        folder: Cache of the client.
        http: The server.
        base: URL of the metadata, with its last slash.
        bootstrap: The pinned root.
        now_ms: Reference time for expiry.

    Returns:
        The updater, which has the newest verified metadata.

    Raises:
        TransportError: A download failed.
        TrustError: The metadata can't be trusted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _drop_empty(folder)
    config = UpdaterConfig(prefix_targets_with_hash=False)
    with _storing(folder):
        updater = _Updater(str(folder), base, fetcher=_Fetcher(http), config=config, bootstrap=bootstrap)
        # the updater offers no way to give it a clock other than the device's, which may be wrong by decades
        updater._trusted_set.reference_time = _as_date(now_ms)  # noqa: SLF001
        updater.refresh()
    return updater


def delegated_target(updater: Updater, name: str, *, folder: Path) -> TargetFile | None:
    """Search delegated roles for a target, section 5.6.7; for the conformance suite, as no list of ours delegates.

    Args:
        updater: Refreshed.
        name: Path of the target.
        folder: Cache of the client.

    Raises:
        TransportError: A download failed.
        TrustError: A role on the way can't be trusted.
    """
    with _storing(folder):
        return updater.get_targetinfo(name)


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    """Let python-tuf download, verify and store; its errors become ours."""
    try:
        yield
    except exceptions.DownloadError as error:
        raise TransportError(f"the signed list could not be fetched: {error}") from error
    except exceptions.RepositoryError as error:
        raise _translated(error) from error
    finally:
        sync_folder(folder)  # for the link to the newest root


def stored_list(folder: Path, *, bootstrap: bytes) -> StoredList | None:
    """Return the cached list, verified again from the pinned root.

    Raises:
        TrustError: The cache holds something that does not verify.
    """
    path = folder / "targets.json"
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        metadata = Metadata[Targets].from_bytes(path.read_bytes())
        newest_root(folder, bootstrap=bootstrap).verify_delegate(
            Targets.type, metadata.signed_bytes, metadata.signatures
        )
    except exceptions.RepositoryError as error:
        raise _translated(error) from error
    return StoredList(signed_list(metadata.signed), int(metadata.signed.expires.timestamp() * 1000))


def timestamp_keys(folder: Path, *, bootstrap: bytes) -> list[Key]:
    """Return the keys of the timestamp role, which sign assignments too.

    Raises:
        TrustError: The cache holds a root that does not verify.
    """
    root = newest_root(folder, bootstrap=bootstrap)
    return [root.keys[keyid] for keyid in root.roles[Timestamp.type].keyids if keyid in root.keys]


def newest_root(folder: Path, *, bootstrap: bytes) -> Root:
    """Walk from the pinned root over the cached ones, each signed by the one before and by itself.

    Raises:
        TrustError: A root does not verify.
    """
    try:
        root = Metadata[Root].from_bytes(bootstrap).signed
        while (path := folder / "root_history" / f"{root.version + 1}.root.json").exists() and path.stat().st_size:
            following = Metadata[Root].from_bytes(path.read_bytes())
            for signer in (root, following.signed):
                signer.verify_delegate(Root.type, following.signed_bytes, following.signatures)
            root = following.signed
    except exceptions.RepositoryError as error:
        raise _translated(error) from error
    return root


def _translated(error: exceptions.RepositoryError) -> TrustError:
    if isinstance(error, exceptions.ExpiredMetadataError):
        return ExpiredError(
            f"the signed list can't be used for new installs: {error}", hint="check this device's clock"
        )
    if isinstance(error, exceptions.BadVersionNumberError):
        return RollbackError(f"the server's metadata is older than what was seen before: {error}")
    if isinstance(error, exceptions.UnsignedMetadataError):
        return UnsignedError(f"the server's metadata has no valid signature: {error}")
    return TrustError(f"the server's metadata can't be trusted: {error}")


def _as_date(now_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now_ms / 1000, tz=dt.UTC)


def _drop_empty(folder: Path) -> None:
    """Delete files that a power cut left empty, so that they count as absent everywhere."""
    for path in folder.rglob("*.json"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size == 0:
            path.unlink()
