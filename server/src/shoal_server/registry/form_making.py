"""Makes coded forms of blobs in the background: at a push, and when a device could have used one.

Nobody ever waits for a form. Of the newest version of each model every file is compressed alone, and against the same
file of the version before; all else is made once a device asks for it, for the next that does. What saves too little is
written down as such and not tried again.

Owns which forms are worth making and how strongly they are compressed. Bounded: one form at a time, in a thread that
stands back for all others; few forms against others for each blob, so that a device that lies about what it holds makes
little work; what is larger than a device could patch is only compressed alone.
"""

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from sqlmodel import Session, select

from shoal_protocol.bundle.codings import CODED_FROM_BYTES, DCZ_MOST_BYTES, Encoder
from shoal_protocol.canonical import Digest, parse_digest, sha256_digest
from shoal_protocol.errors import ContentError, DigestMismatchError, LocalError
from shoal_server.errors import NotFoundError
from shoal_server.registry import forms, oci_store, store
from shoal_server.registry.bundles import Bundles
from shoal_server.registry.tables import BlobForm, ModelVersion
from shoal_server.signals import Signals
from shoal_server.storage.blobs import BlobStore
from shoal_server.storage.database import Clock, Database

WORTH_IT = 0.95
"""A form is kept that is smaller than this share of the smallest one there was without it."""

_STRONG_UP_TO_BYTES = 32 << 20
_WISHES = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """A form that somebody could use: of a blob of a repository, against another, or "" for none."""

    repository: str
    digest: str
    base: str = ""


class _StoppedError(Exception):
    """The program ends; what was begun is given up."""


class FormMaker:
    """Makes forms, one after the other.

    Args:
        database: Its rows.
        blobs: Where blobs and forms are.
        bundles: Reads manifests.
        clock: For `made_at`.
        signals: Woken by; when they are closed, work is given up.
    """

    def __init__(
        self, database: Database, blobs: BlobStore, bundles: Bundles, *, clock: Clock, signals: Signals
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._bundles = bundles
        self._clock = clock
        self._signals = signals
        self._lock = threading.Lock()
        self._wishes: dict[Wish, None] = {}
        self._seen: set[str] = set()

    def wish(self, repository: str, digest: str, base: str) -> None:
        """Note that a device could have used a form; forgotten when too many wait."""
        with self._lock:
            if len(self._wishes) >= _WISHES:
                return
            self._wishes[Wish(repository, digest, base)] = None
        self._signals.bump("forms")

    def turn(self) -> None:
        """Make what is wished for, then what the newest versions lack; returns early when the program ends."""
        with suppress(_StoppedError):
            for wish in self._due():
                try:
                    self._make(wish)
                except (NotFoundError, ContentError, DigestMismatchError) as error:  # collected meanwhile, or damaged
                    _log.info("no form of %s: %s", wish.digest, error)
                except (OSError, LocalError) as error:  # a full disk: trying again at once would only cost time
                    _log.warning("forms can't be stored, so files travel as they are: %s", error)
                    return

    def _due(self) -> Iterator[Wish]:
        while True:
            with self._lock:
                wish = next(iter(self._wishes), None)
                if wish is not None:
                    del self._wishes[wish]
            if wish is None:
                break
            yield wish
        with self._database.read() as session:
            newest = _newest_versions(session)
        for version, before in newest:
            if version.digest not in self._seen:
                yield from self._of_version(version, before)
                self._seen.add(version.digest)

    def _of_version(self, version: ModelVersion, before: ModelVersion | None) -> Iterator[Wish]:
        """Go through the forms of one version's files: alone, then against the file of the version before."""
        try:
            files = self._bundles.manifest(version.digest).files()
            older = {} if before is None else self._bundles.manifest(before.digest).files()
        except (NotFoundError, ContentError):
            return
        for path, blob in files.items():
            yield Wish(version.model, blob.digest)
            if path in older:
                yield Wish(version.model, blob.digest, older[path].digest)

    def _make(self, wish: Wish) -> None:
        with self._database.read() as session:
            size = _size_of(session, wish)
            most = 0 if size is None else _most(session, wish, size)
        if size is None or not most:
            return
        _log.info("coding %s (%d bytes) against %s", wish.digest, size, wish.base or "nothing")
        made = self._coded(wish, size, most=most)
        with self._database.write() as session:
            oci_store.lock_contents(session)
            if _size_of(session, wish) is None or (made is not None and not self._blobs.has(made[0])):
                return
            digest, coded = made or ("", 0)
            row = BlobForm(digest=wish.digest, base=wish.base, form=digest, size=coded, made_at=self._clock())
            forms.record(session, row)

    def _coded(self, wish: Wish, size: int, *, most: int) -> tuple[str, int] | None:
        """Code a blob and store the result; returns its digest and size, None when it has more than `most` bytes."""
        encoder = Encoder(size, level=_level(size), dictionary=self._dictionary(wish.base))
        digest, coded = hashlib.sha256(), 0
        upload = self._blobs.begin_upload()
        try:
            for piece in self._pieces(wish.digest, encoder):
                if coded + len(piece) > most:
                    return None
                digest.update(piece)
                coded = self._blobs.append(upload, piece, offset=coded)
            name = f"sha256:{digest.hexdigest()}"
            self._blobs.finish(upload, name)
        finally:
            with suppress(NotFoundError):  # finished, and so gone
                self._blobs.abort(upload)
        return name, coded

    def _dictionary(self, base: str) -> tuple[Digest, bytes] | None:
        if not base:
            return None
        content = b"".join(self._blobs.pieces(base))
        if sha256_digest(content) != base:  # a patch against it would fit no device
            raise DigestMismatchError(f"the stored blob {base} is damaged", digest=base)
        return parse_digest(base), content

    def _pieces(self, digest: str, encoder: Encoder) -> Iterator[bytes]:
        """Go through the coded bytes; the program's end is noticed between two pieces."""
        for piece in self._blobs.pieces(digest):
            if self._signals.closed:
                raise _StoppedError
            yield encoder.feed(piece)
        yield encoder.finish()


def _level(size: int) -> int:
    """Return how strongly a blob of this size is compressed: a second for 3 MB, or for 100 MB where there is much."""
    return 19 if size <= _STRONG_UP_TO_BYTES else 9


def is_worth_trying(session: Session, wish: Wish) -> bool:
    """Tell whether a form might be made and kept: it is of a size to be coded, and of what the repository has."""
    size = _size_of(session, wish)
    return size is not None and _most(session, wish, size) > 0


def _size_of(session: Session, wish: Wish) -> int | None:
    """Return the blob's size, None when it or the base is not, or no longer, in the repository."""
    if wish.base and not oci_store.has_blob(session, wish.repository, wish.base):
        return None
    return oci_store.blob_size(session, wish.repository, wish.digest)


def _most(session: Session, wish: Wish, size: int) -> int:
    """Return how many bytes a form may have to be worth keeping; 0: there is no use in trying."""
    if size < CODED_FROM_BYTES or wish.base == wish.digest or forms.form_row(session, wish.digest, wish.base):
        return 0
    if not wish.base:
        return int(size * WORTH_IT)
    base_size = oci_store.blob_size(session, wish.repository, wish.base) or 0
    if base_size < CODED_FROM_BYTES or max(size, base_size) > DCZ_MOST_BYTES:
        return 0
    if forms.patches(session, wish.digest) >= forms.PATCHES_A_BLOB:
        return 0
    alone = forms.form_row(session, wish.digest, "")
    return int((alone.size if alone is not None and alone.form else size) * WORTH_IT)


def _newest_versions(session: Session) -> list[tuple[ModelVersion, ModelVersion | None]]:
    """Return the newest version of each model, and the one before it."""
    models = session.exec(select(ModelVersion.model).distinct()).all()
    pairs = [store.versions(session, model, limit=2) for model in sorted(models)]
    return [(found[0], found[1] if len(found) > 1 else None) for found in pairs if found]
