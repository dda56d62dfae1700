"""Which files a bundle has, what they are called, and which paths are safe.

Invariant: a path that `safe_path` returned can be joined to a folder on any file system without leaving it.
"""

from __future__ import annotations

import re

from shoal_protocol.errors import ContentError

FILEPATH_ANNOTATION = "org.cncf.model.filepath"
TITLE_ANNOTATION = "org.opencontainers.image.title"
"""Set beside the path, because oras names pulled files by it."""

BUNDLE_JSON = "bundle.json"
SCHEMA_JSON = "schema.json"
MODEL_ONNX = "model/model.onnx"
REFERENCE_JSON = "reference.json"
GOLDEN_DIR = "test_data_set_0"
README = "README.md"
LICENSE = "LICENSE"

REQUIRED_FILES = (BUNDLE_JSON, SCHEMA_JSON, MODEL_ONNX)

WEIGHT_RAW = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_RAW = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_RAW = "application/vnd.cncf.model.doc.v1.raw"
DATASET_RAW = "application/vnd.cncf.model.dataset.v1.raw"

_SEGMENT_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RESERVED = frozenset({"con", "prn", "aux", "nul"})


def safe_path(text: str) -> str:
    """Return a relative path that stays inside its folder.

    Segments are ASCII letters, digits, ``.``, ``_`` and ``-``, none begins with a dot or dash; so there is no ``..``,
    no drive letter, no absolute path and no other spelling of one file.

    Raises:
        ContentError: The path is not safe.
    """
    segments = text.split("/")
    if len(text) > 512 or len(segments) > 8:
        raise ContentError(f"the path {text!r:.80} is too long or too deep")
    for segment in segments:
        if _SEGMENT_RE.fullmatch(segment) is None or segment.split(".")[0].lower() in _RESERVED:
            raise ContentError(f"the path {text!r} is not safe: {segment!r} is not an allowed name")
    return text


def media_type_for(path: str) -> str:
    """Return the ModelPack media type of a bundle's file."""
    if path.startswith("model/"):
        return WEIGHT_RAW
    if path.startswith(f"{GOLDEN_DIR}/"):
        return DATASET_RAW
    if path in {README, LICENSE}:
        return DOC_RAW
    return WEIGHT_CONFIG_RAW


def golden_input(index: int) -> str:
    """Return the path of the golden rows of one model input, in the naming of ONNX's own test data sets."""
    return f"{GOLDEN_DIR}/input_{index}.pb"


def golden_output(index: int) -> str:
    """Return the path of the golden rows of one model output."""
    return f"{GOLDEN_DIR}/output_{index}.pb"
