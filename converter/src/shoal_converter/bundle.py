"""A bundle in memory: its files, its manifest, and the statements beside it.

Owns the way from files to the digest and back, and what a person is shown of it. A `Bundle` never changes.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_converter.oci_layout import Layout, read_layout, write_layout
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.layout import BUNDLE_JSON, MODEL_ONNX, REFERENCE_JSON, REQUIRED_FILES, SCHEMA_JSON
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE, Manifest, encode_manifest, parse_manifest
from shoal_protocol.bundle.schema import BundleInfo, ModelSchema, parse_bundle_info, parse_schema
from shoal_protocol.canonical import canonical_bytes, sha256_digest
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.reference import Reference, parse_reference
from shoal_protocol.refs import Ref

if TYPE_CHECKING:
    from shoal_converter.pushing import Pushed
    from shoal_converter.signing.pipeline import ReleaseKey

STATEMENT_MEDIA_TYPE = "application/vnd.in-toto+json"
SIGNATURE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
OMS = "oms"
"""Name of the OpenSSF Model Signing signature among the statements."""
_EMPTY = b"{}"
_EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, eq=False)
class Bundle:
    """One version of a model.

    Attributes:
        manifest_raw: Canonical manifest; its sha256 is the digest.
        config: The ModelPack config document.
        files: Path inside the bundle -> content.
        statements: In-toto statements by a short name (``provenance``, ``parity``); outside the digest.
        parity: The parity report, when it was packed here.
        measured: What was measured when it was packed here: latency, memory, variants.
        path: Where it was written or read.
    """

    manifest_raw: bytes
    config: bytes
    files: Mapping[str, bytes]
    statements: Mapping[str, bytes] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    measured: Mapping[str, Any] | None = None
    path: Path | None = None

    @classmethod
    def build(
        cls,
        files: Mapping[str, bytes],
        *,
        config: bytes,
        annotations: Mapping[str, str],
    ) -> Bundle:
        """Make a bundle from its files."""
        manifest = build_manifest(files, config=config, annotations=annotations)
        return cls(encode_manifest(manifest), config, dict(files))

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Read a folder or tar, and check every digest.

        Raises:
            SourceError: There is no OCI layout at the path.
            SignatureError: A file is not the one that the manifest names.
            ContentError: It is no bundle.
        """
        path = Path(path)
        return cls.from_layout(read_layout(path), path=path)

    @classmethod
    def from_layout(cls, layout: Layout, *, path: Path | None = None) -> Bundle:
        """Make a bundle from an OCI layout.

        Raises:
            ContentError: A file that every bundle needs is not there.
        """
        manifest = parse_manifest(layout.manifest)
        files = {name: layout.blobs[entry.digest] for name, entry in manifest.files().items()}
        absent = [name for name in REQUIRED_FILES if name not in files]
        if absent:
            raise ContentError(f"the bundle has no {', '.join(absent)}")
        config = layout.blobs[manifest.config.digest]
        return cls(layout.manifest, config, files, statements=_read_statements(layout), path=path)

    @cached_property
    def digest(self) -> str:
        """The bundle's true name."""
        return sha256_digest(self.manifest_raw)

    @cached_property
    def manifest(self) -> Manifest:
        """The parsed manifest."""
        return parse_manifest(self.manifest_raw)

    @cached_property
    def info(self) -> BundleInfo:
        """``bundle.json``."""
        return parse_bundle_info(self.files[BUNDLE_JSON])

    @cached_property
    def schema(self) -> ModelSchema:
        """``schema.json``."""
        return parse_schema(self.files[SCHEMA_JSON])

    @cached_property
    def reference(self) -> Reference | None:
        """``reference.json``, if there is one."""
        raw = self.files.get(REFERENCE_JSON)
        return None if raw is None else parse_reference(raw)

    @property
    def model(self) -> bytes:
        """The ONNX model."""
        return self.files[MODEL_ONNX]

    @property
    def ref(self) -> Ref:
        """``name:version``."""
        return Ref(self.info.name, version=self.info.version)

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return self.manifest.total_bytes

    def unpacked(self) -> dict[str, bytes]:
        """Return path and content of what `unpack` writes, and an OMS signature covers."""
        return {"manifest.json": self.manifest_raw, "config.json": self.config, **self.files}

    def blobs(self) -> dict[str, bytes]:
        """Return every blob that the manifest names, by digest."""
        return {sha256_digest(content): content for content in (self.config, *self.files.values())}

    def referrers(self) -> tuple[bytes, ...]:
        """Return the manifest of each statement."""
        subject = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": self.digest, "size": len(self.manifest_raw)}
        return tuple(
            canonical_bytes(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST_MEDIA_TYPE,
                    "artifactType": _media_type(name),
                    "config": {"mediaType": _EMPTY_MEDIA_TYPE, "digest": sha256_digest(_EMPTY), "size": len(_EMPTY)},
                    "layers": [
                        {
                            "mediaType": _media_type(name),
                            "digest": sha256_digest(raw),
                            "size": len(raw),
                            "annotations": {"org.opencontainers.image.title": f"{name}.json"},
                        }
                    ],
                    "subject": subject,
                }
            )
            for name, raw in sorted(self.statements.items())
        )

    def layout(self) -> Layout:
        """Return the bundle and its statements as an OCI layout."""
        blobs = self.blobs()
        if self.statements:
            blobs[sha256_digest(_EMPTY)] = _EMPTY
            blobs |= {sha256_digest(raw): raw for raw in self.statements.values()}
        return Layout(self.info.version, self.manifest_raw, self.referrers(), blobs)

    def write(self, path: Path | str, *, force: bool = False) -> Path:
        """Write an OCI image layout: a folder, or a tar when the path ends in ``.tar``.

        Raises:
            OutputExistsError: Something is there and `force` is not set.
        """
        path = Path(path)
        write_layout(self.layout(), path, force=force)
        return path

    def push(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | None = None,
        progress: Callable[[str], None] | None = None,
        key: ReleaseKey | None = None,
    ) -> Pushed:
        """Upload it to a registry.

        Args:
            url: Of the Shoal server, or of any OCI registry.
            token: Of a releaser; for another registry ``user:password``.
            ca: File of the certificate authority to trust.
            progress: Called with one line for each thing done.
            key: Signs the release; `shoal_converter.signing.pipeline.open_release_key` opens one.

        Returns:
            What was sent, and what signed it.

        Raises:
            RegistryError: The registry can't be reached.
            RegistryRefusedError: It said no.
        """
        from shoal_converter.pushing import push  # noqa: PLC0415 - needs an HTTP client only here

        return push(self, url, token=token, ca=ca, progress=progress, key=key)

    def statement(self, name: str) -> Any:
        """Return what a statement beside the bundle says, or none where there is no such statement."""
        import json  # noqa: PLC0415 - only when read

        raw = self.statements.get(name)
        return None if raw is None else json.loads(raw).get("predicate")

    def summary(self) -> list[tuple[str, str]]:
        """Return what a person wants to know, as rows of a table."""
        rows = [
            ("model", str(self.ref)),
            ("digest", self.digest),
            ("task", f"{self.info.task} ({self.info.framework})"),
            ("inputs", _listed([f"{f.name} {f.dtype}" for f in self.schema.inputs])),
            ("outputs", _listed([f"{o.name} {o.dtype}{_shape(o.shape)}" for o in self.schema.outputs])),
            ("size", f"{self.size_bytes:,} bytes, model {len(self.model):,}"),
            ("onnx", f"IR {self.info.onnx.get('ir_version')}, opsets {self.info.onnx.get('opsets')}"),
        ]
        if self.info.golden:
            rows.append(("golden rows", str(self.info.golden.rows)))
        reference = self.reference
        if reference is not None:
            of = reference.sources.get("profile", "sample")
            rows.append(("reference", f"{reference.profile.n} rows of the {of}, {len(reference.spec.streams)} streams"))
            of = reference.sources.get("metrics", "sample")
            rows += [(name, f"{value:.4g} on the {of}") for name, value in sorted(reference.metrics.items())]
            rows += [(f"  {name}", said) for name, said in segment_lines(reference)]
            top = sorted(reference.importance.items(), key=lambda item: (-item[1], item[0]))[:5]
            rows += [("importance", ", ".join(f"{name} {value:.3g}" for name, value in top))] if top else []
        if len(self.info.variants) > 1:
            forms = (
                f"{f.path} {len(self.files[f.path]):,} bytes, {f.platform or 'anywhere'}" for f in self.info.variants
            )
            rows.append(("variants", "; ".join(forms)))
        if self.parity is not None:
            rows.append(("parity", parity_line(self.parity)))
        if self.path is not None:
            rows.append(("path", str(self.path)))
        return rows

    def __repr__(self) -> str:
        return f"Bundle({self.ref}, {self.digest[:19]}…, {self.size_bytes:,} bytes)"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self.summary()
        )
        return f"<table>{cells}</table>"


def segment_lines(reference: Reference) -> list[tuple[str, str]]:
    """Return for each segment what it is, and its figures with their 95 % intervals."""
    return [
        (
            ", ".join(f"{column} {value}" for column, value in part.by.items()),
            "; ".join(f"{n} {f.value:.4g} ({f.low:.4g} to {f.high:.4g})" for n, f in part.metrics.items())
            + f", n {part.n}",
        )
        for part in reference.segments
    ]


def parity_line(report: Mapping[str, Any]) -> str:
    """Say a parity report in one line."""
    return (
        f"{report['rows']} rows, {report['label_flips']} label flips, "
        f"max abs {report['max_abs']}, max rel {report['max_rel']}"
    )


def _listed(items: list[str], most: int = 6) -> str:
    more = f" … ({len(items)} in all)" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"


def _media_type(statement: str) -> str:
    return SIGNATURE_MEDIA_TYPE if statement == OMS else STATEMENT_MEDIA_TYPE


def _read_statements(layout: Layout) -> dict[str, bytes]:
    import json  # noqa: PLC0415 - only when read

    found: dict[str, bytes] = {}
    for raw in layout.referrers:
        for layer in json.loads(raw).get("layers") or []:
            title = (layer.get("annotations") or {}).get("org.opencontainers.image.title", "")
            if (
                layer.get("mediaType") in {STATEMENT_MEDIA_TYPE, SIGNATURE_MEDIA_TYPE}
                and layer.get("digest") in layout.blobs
            ):
                found[str(title).removesuffix(".json") or "statement"] = layout.blobs[layer["digest"]]
    return found
