"""Reading what is inside an admitted bundle: manifest, bundle.json, schema.json, reference.json.

Owns a small cache, which never goes stale because a digest's content never changes.
"""

from functools import lru_cache

from shoal_protocol.bundle.layout import BUNDLE_JSON, REFERENCE_JSON, SCHEMA_JSON
from shoal_protocol.bundle.manifest import Manifest, parse_manifest
from shoal_protocol.bundle.schema import BundleInfo, ModelSchema, parse_bundle_info, parse_schema
from shoal_protocol.profile.reference import Reference, parse_reference
from shoal_server.errors import NotFoundError
from shoal_server.storage.blobs import BlobStore

_CACHED = 64


class Bundles:
    """The files of bundles, by the bundle's digest.

    Args:
        blobs: where manifests and files are.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.manifest = lru_cache(_CACHED)(self._manifest)
        self.info = lru_cache(_CACHED)(self._info)
        self.schema = lru_cache(_CACHED)(self._schema)
        self.reference = lru_cache(_CACHED)(self._reference)

    def file(self, digest: str, path: str) -> bytes:
        """Return a file's content; raises `NotFoundError` when the bundle or the file isn't there."""
        layer = self.manifest(digest).files().get(path)
        if layer is None:
            raise NotFoundError(f"the bundle {digest} has no file {path}")
        with self._blobs.open(layer.digest) as file:
            return file.read()

    def blob(self, digest: str, *, at_most: int) -> bytes | None:
        """Return a blob's content; None when it is larger than `at_most` bytes, or isn't there."""
        try:
            with self._blobs.open(digest) as file:
                content = file.read(at_most + 1)
        except NotFoundError:
            return None
        return content if len(content) <= at_most else None

    def _manifest(self, digest: str) -> Manifest:
        with self._blobs.open(digest) as file:
            return parse_manifest(file.read())

    def _info(self, digest: str) -> BundleInfo:
        return parse_bundle_info(self.file(digest, BUNDLE_JSON))

    def _schema(self, digest: str) -> ModelSchema:
        return parse_schema(self.file(digest, SCHEMA_JSON))

    def _reference(self, digest: str) -> Reference | None:
        """Return the profile of the training data, None when the bundle has none."""
        if REFERENCE_JSON not in self.manifest(digest).files():
            return None
        return parse_reference(self.file(digest, REFERENCE_JSON))
