"""Whether a pushed bundle becomes a version: every rule that it must keep, told together when it doesn't.

Owns the rules and their order. Reads blobs, writes nothing; no file of a bundle is ever executed or unpickled, and
models are read by a child process only. Recording the version is `push`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from shoal_protocol.bundle.layout import BUNDLE_JSON, REFERENCE_JSON, REQUIRED_FILES, SCHEMA_JSON
from shoal_protocol.bundle.manifest import Manifest, parse_manifest
from shoal_protocol.bundle.schema import BundleInfo, ModelSchema, parse_bundle_info, parse_schema
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.reference import parse_reference
from shoal_server.registry.onnx_check import ModelFacts, OnnxChecker
from shoal_server.registry.refusals import Fault, RefusedError, refuse
from shoal_server.storage.blobs import BlobStore

MAX_BUNDLE_BYTES = 4 * 1024**3
MAX_DOCUMENT_BYTES = 32 * 1024**2
ALLOWED_SUFFIXES = frozenset({".json", ".onnx", ".pb", ".md", ".txt", ""})

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class AdmittedBundle:
    """A bundle that keeps every rule."""

    manifest: Manifest
    info: BundleInfo
    schema: ModelSchema


class Admission:
    """The rules, over one place for blobs.

    Args:
        blobs: where the pushed files are.
        checker: looks at model files.
    """

    def __init__(self, blobs: BlobStore, checker: OnnxChecker) -> None:
        self._blobs = blobs
        self._checker = checker

    def admit(self, raw: bytes, *, model: str, version: str, in_repository: Callable[[str], bool]) -> AdmittedBundle:
        """Check a bundle whose blobs were all pushed before.

        Args:
            raw: the manifest, as it came.
            model: the repository it is pushed to.
            version: the tag it is pushed with.
            in_repository: whether a blob was pushed to this repository.

        Raises:
            RefusedError: it breaks a rule; `data["faults"]` has all that were found.
        """
        try:
            manifest = parse_manifest(raw)
        except ContentError as error:
            raise RefusedError("manifest", error.message, hint=error.hint) from error
        refuse(self._blob_faults(manifest, in_repository))
        refuse(_file_faults(manifest))
        faults: list[Fault] = []
        info = self._document(manifest, BUNDLE_JSON, parse_bundle_info, faults)
        schema = self._document(manifest, SCHEMA_JSON, parse_schema, faults)
        if REFERENCE_JSON in manifest.files():
            self._document(manifest, REFERENCE_JSON, parse_reference, faults)
        if info is not None:
            faults += _identity_faults(info, manifest, model=model, version=version)
        refuse(faults)
        assert info is not None
        assert schema is not None
        refuse(self._model_faults(manifest, schema))
        return AdmittedBundle(manifest, info, schema)

    def _blob_faults(self, manifest: Manifest, in_repository: Callable[[str], bool]) -> list[Fault]:
        faults = []
        for blob in manifest.blobs():
            if not in_repository(blob.digest) or not self._blobs.has(blob.digest):
                faults.append(Fault("blobs_present", f"push the blob {blob.digest} first"))
            elif (size := self._blobs.size(blob.digest)) != blob.size:
                faults.append(Fault("blob_size", f"{blob.digest} has {size} bytes, the manifest says {blob.size}"))
        if manifest.total_bytes > MAX_BUNDLE_BYTES:
            what = f"the bundle has {manifest.total_bytes} bytes, at most {MAX_BUNDLE_BYTES} are allowed"
            faults.append(Fault("bundle_size", what))
        return faults

    def _document(
        self, manifest: Manifest, path: str, parse: Callable[[bytes], _Parsed], faults: list[Fault]
    ) -> _Parsed | None:
        layer = manifest.files()[path]
        rule = path.replace(".", "_")
        if layer.size > MAX_DOCUMENT_BYTES:
            faults.append(Fault(rule, f"{path} has {layer.size} bytes, at most {MAX_DOCUMENT_BYTES} are allowed"))
            return None
        with self._blobs.open(layer.digest) as file:
            raw = file.read()
        try:
            return parse(raw)
        except ContentError as error:
            faults.append(Fault(rule, error.message))
            return None

    def _model_faults(self, manifest: Manifest, schema: ModelSchema) -> list[Fault]:
        faults = []
        for path, layer in manifest.files().items():
            if not path.endswith(".onnx"):
                continue
            with self._blobs.file(layer.digest) as file:
                found = self._checker.check(file)
            if isinstance(found, Fault):
                faults.append(Fault(found.rule, f"{path}: {found.what}"))
            else:
                faults += _interface_faults(path, found, schema)
        return faults


def _file_faults(manifest: Manifest) -> list[Fault]:
    files = manifest.files()
    faults = [Fault("required_files", f"there is no {path}") for path in REQUIRED_FILES if path not in files]
    strange = [path for path in files if PurePosixPath(path).suffix not in ALLOWED_SUFFIXES]
    if strange:
        what = f"files of a kind that no device reads: {', '.join(strange[:5])} (pickles and libraries are never taken)"
        faults.append(Fault("file_types", what))
    return faults


def _identity_faults(info: BundleInfo, manifest: Manifest, *, model: str, version: str) -> list[Fault]:
    faults = []
    if (info.name, info.version) != (model, version):
        what = f"bundle.json says {info.name}:{info.version}, it was pushed as {model}:{version}"
        faults.append(Fault("identity", what))
    missing = [variant.path for variant in info.variants if variant.path not in manifest.files()]
    if missing or not info.variants:
        what = (
            f"bundle.json names variants that are not in the bundle: {', '.join(missing)}" if missing else "no variants"
        )
        faults.append(Fault("variants", what))
    return faults


def _interface_faults(path: str, facts: ModelFacts, schema: ModelSchema) -> list[Fault]:
    faults = []
    tensors, outputs = {tensor.name for tensor in schema.tensors}, {output.name for output in schema.outputs}
    if set(facts.inputs) != tensors:
        what = f"{path} has the inputs {sorted(facts.inputs)}, schema.json says {sorted(tensors)}"
        faults.append(Fault("interface", what))
    if not outputs <= set(facts.outputs):
        what = f"{path} has the outputs {sorted(facts.outputs)}, schema.json says {sorted(outputs)}"
        faults.append(Fault("interface", what))
    return faults
