"""A bundle's ``reference.json``: the grids, and what the training data looked like on them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from shoal_protocol.canonical import canonical_bytes, rounded
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import CategoricalGrid
from shoal_protocol.profile.profile import Profile, ProfileSpec, check_profile, parse_spec
from shoal_protocol.profile.quality import Quality, Segment, check_quality, rounded_quality, rounded_segment

FORMAT_VERSION = 1
ANSWERS = "label"
"""Stream that counts a classifier's answers."""


class Reference(msgspec.Struct, frozen=True):
    """What the fleet's profiles are compared with.

    Attributes:
        spec: The streams and their grids.
        profile: Counts of the training (or better the validation) data on them.
        importance: Permutation importance by stream name, in the unit of the metric named by `metric`.
        metric: For example ``accuracy``; empty where there was no label.
        metrics: The model's own figures on that data, by name.
        calibration: For each of the 64 score bins the share of correct predictions, or none.
        validation: Whether `profile` is of validation data rather than of the sample.
        quality: How right the model was, or none where there were no labels.
        segments: The same figures for parts of the data.
        sources: Which data each figure is of: ``profile``, ``metrics``, ``importance`` or ``segments`` -> ``sample`` or
            ``validation``.
        by_answer: Of a classifier, the same counts for the rows of each answer, one row a category of the stream
            ``label``, shape (K, size); none where there is no such stream or they would be too many.
    """

    spec: ProfileSpec
    profile: Profile
    importance: dict[str, float] = msgspec.field(default_factory=dict)
    metric: str = ""
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    calibration: tuple[float | None, ...] | None = None
    validation: bool = False
    quality: Quality | None = None
    segments: tuple[Segment, ...] = ()
    sources: dict[str, str] = msgspec.field(default_factory=dict)
    by_answer: tuple[tuple[int, ...], ...] | None = None


def encode_reference(reference: Reference) -> bytes:
    """Return canonical JSON, its derived floats rounded to 6 significant digits."""
    return canonical_bytes(
        {
            "format_version": FORMAT_VERSION,
            "spec": reference.spec.as_json(),
            "n": reference.profile.n,
            "cells": reference.profile.cells.tolist(),
            "moments": reference.profile.moments.tolist(),
            "importance": {name: rounded(value) for name, value in reference.importance.items()},
            "metric": reference.metric,
            "metrics": {name: rounded(value) for name, value in reference.metrics.items()},
            "calibration": None
            if reference.calibration is None
            else [None if share is None else rounded(share) for share in reference.calibration],
            "validation": reference.validation,
            "quality": None if reference.quality is None else msgspec.to_builtins(rounded_quality(reference.quality)),
            "segments": [msgspec.to_builtins(rounded_segment(segment)) for segment in reference.segments],
            "sources": reference.sources,
            **({} if reference.by_answer is None else {"by_answer": [list(row) for row in reference.by_answer]}),
        }
    )


class _Document(msgspec.Struct, kw_only=True):
    format_version: int
    spec: list[dict[str, Any]]
    n: int
    cells: list[int]
    moments: list[tuple[int, int]]
    importance: dict[str, float] = msgspec.field(default_factory=dict)
    metric: str = ""
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    calibration: list[float | None] | None = None
    validation: bool = False
    quality: Quality | None = None
    segments: tuple[Segment, ...] = ()
    sources: dict[str, str] = msgspec.field(default_factory=dict)
    by_answer: tuple[tuple[int, ...], ...] | None = None


def parse_reference(raw: bytes) -> Reference:
    """Parse ``reference.json``.

    Raises:
        ContentError: It does not parse, is of a newer format, or its counts do not fit its grids.
    """
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"reference.json: {error}") from error
    if document.format_version > FORMAT_VERSION:
        raise ContentError(
            f"reference.json has format version {document.format_version}, this program reads up to {FORMAT_VERSION}",
            hint="update Shoal here",
        )
    spec = parse_spec(document.spec)
    try:
        cells = np.array(document.cells, dtype=np.int64)
        moments = np.array(document.moments, dtype=np.int64).reshape(-1, 2)
    except OverflowError as error:
        raise ContentError("reference.json: a count does not fit 64 bits") from error
    profile = Profile(spec.hash, document.n, cells, moments)
    return Reference(
        spec,
        check_profile(profile, spec),
        document.importance,
        document.metric,
        document.metrics,
        None if document.calibration is None else tuple(document.calibration),
        document.validation,
        None if document.quality is None else check_quality(document.quality),
        document.segments,
        document.sources,
        None if document.by_answer is None else _by_answer(document.by_answer, spec),
    )


def answers_of(spec: ProfileSpec) -> tuple[str, ...]:
    """Return the categories of the stream that counts a classifier's answers; none where it has no such stream."""
    stream = spec.streams[spec.index[ANSWERS]] if ANSWERS in spec.index else None
    if stream is None or stream.kind != "output" or not isinstance(stream.grid, CategoricalGrid):
        return ()
    return stream.grid.categories


def _by_answer(table: tuple[tuple[int, ...], ...], spec: ProfileSpec) -> tuple[tuple[int, ...], ...]:
    answers = len(answers_of(spec))
    fits = len(table) == answers and all(len(row) == spec.size for row in table)
    if not fits or any(min(row) < 0 or max(row) >= 2**63 for row in table):
        raise ContentError(f"reference.json: by_answer is not {answers} x {spec.size} counts")
    return table
