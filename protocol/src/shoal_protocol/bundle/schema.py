"""The two documents that say what a bundle is: ``bundle.json`` and ``schema.json``.

Owns their fields and rules. Unknown fields are ignored by readers and stay in the file, whose raw bytes are what the
digest covers; a higher `format_version` is refused by name.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.bundle.layout import MODEL_ONNX, safe_path
from shoal_protocol.canonical import canonical_bytes
from shoal_protocol.errors import ContentError

FORMAT_VERSION = 1

DType = Literal["float32", "float64", "int64", "int32", "bool", "string", "uint8", "float16", "int8", "int16"]


class Nearness(msgspec.Struct, frozen=True, kw_only=True):
    """How near a variant must come to the golden rows, which the canonical model answered."""

    rtol: float
    atol: dict[str, float] = msgspec.field(default_factory=dict)
    """By output; an output that isn't named has the bundle's own."""
    label_flips: int = 0
    """Golden rows whose label may differ."""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One executable form of the model; a device fetches the common layers and those of its variant."""

    path: str = MODEL_ONNX
    precision: str = "float32"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    platform: str | None = None
    """``linux/arm64`` and the like; none: runs everywhere."""
    golden: Nearness | None = None
    """None: as near as the bundle's own golden tolerance says."""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What the model needs and may use on a device."""

    min_onnxruntime: str = "1.20"
    memory_budget_bytes: int | None = None
    latency_budget_ms: float | None = None
    """Of one row at batch 1, p95."""
    threads: int = 1


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """The self-test rows inside the bundle and how near a device must come to them."""

    rows: int
    rtol: float = 1e-4
    atol: float = 1e-5


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``bundle.json``."""

    format_version: int = FORMAT_VERSION
    name: str
    version: str
    task: Literal["classification", "regression", "transform", "clustering", "anomaly", "other"]
    framework: str
    converter: dict[str, Any] = msgspec.field(default_factory=dict)
    """Name, version and options of the converter."""
    onnx: dict[str, Any] = msgspec.field(default_factory=dict)
    """``ir_version`` and ``opsets``."""
    variants: tuple[Variant, ...] = (Variant(),)
    """The best first: a device takes the first one that runs on it."""
    runtime: Runtime = Runtime()
    golden: Golden | None = None
    parent: dict[str, str] | None = None
    """``{"digest": …}`` of the version whose grids this one inherits."""
    gates: dict[str, Any] = msgspec.field(default_factory=dict)
    """Default gates for rollouts."""


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input tensor of the ONNX graph; shape entries are sizes, or none where any size fits."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]


class FieldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One feature as the user knows it, and where it goes in the input tensors."""

    name: str
    dtype: DType
    tensor: str
    column: int | None = None
    """Column of a 2-D tensor; none: the whole tensor is this feature."""
    missing: Literal["allowed", "refused"] = "allowed"
    missing_sentinel: str | None = None
    """What stands for a missing string, so that parity check and device do the same."""
    categories: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One output tensor and its meaning."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]
    role: Literal["label", "probabilities", "scores", "value", "other"]
    classes: tuple[str, ...] | None = None
    """Texts of the classes in the order of the columns, or of the possible labels."""


class ModelSchema(msgspec.Struct, frozen=True, kw_only=True):
    """``schema.json``."""

    format_version: int = FORMAT_VERSION
    tensors: tuple[TensorSpec, ...]
    inputs: tuple[FieldSpec, ...]
    outputs: tuple[OutputSpec, ...]
    contract: tuple[Rule, ...] = ()
    """What the features' values must be; devices count the rows that break a rule."""

    def output(self, role: str) -> OutputSpec | None:
        """Return the first output with this role."""
        return next((output for output in self.outputs if output.role == role), None)


_Document = TypeVar("_Document", BundleInfo, ModelSchema)


def encode_document(document: BundleInfo | ModelSchema) -> bytes:
    """Return canonical JSON."""
    return canonical_bytes(msgspec.to_builtins(document))


def parse_bundle_info(raw: bytes) -> BundleInfo:
    """Parse ``bundle.json``.

    Raises:
        ContentError: It does not parse, or is of a newer format than this program reads.
    """
    info = _parse(raw, BundleInfo, "bundle.json")
    for variant in info.variants:
        safe_path(variant.path)
    return info


def parse_schema(raw: bytes) -> ModelSchema:
    """Parse ``schema.json``.

    Raises:
        ContentError: It does not parse, is of a newer format, or a feature names a tensor that is not there.
    """
    schema = _parse(raw, ModelSchema, "schema.json")
    tensors = {tensor.name for tensor in schema.tensors}
    faults = [f"{f.name!r} -> {f.tensor!r}" for f in schema.inputs if f.tensor not in tensors]
    if faults:
        raise ContentError(f"schema.json: these features name no tensor of the model: {', '.join(faults)}")
    return schema


def _parse(raw: bytes, kind: type[_Document], name: str) -> _Document:
    try:
        document = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"{name}: {error}") from error
    if document.format_version > FORMAT_VERSION:
        raise ContentError(
            f"{name} has format version {document.format_version}, this program reads up to {FORMAT_VERSION}",
            hint="update Shoal here",
        )
    return document
