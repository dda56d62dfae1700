"""Which figures are estimated of which bundle: with counts by score and without, by a threshold anywhere or by none."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from shoal_protocol.profile.profile import summarise
from shoal_protocol.profile.reference import Reference
from shoal_server.quality.estimates import estimate_json
from shoal_server.quality.outputs import OutputLayout, Outputs
from shoal_server.testing.quality_fleet import CLASSES, SPEC, draw, reference

THRESHOLD = 0.25


def answers(
    seed: int, *, threshold: float, rows: int = 6000, centre: float = 0.3
) -> tuple[Outputs, np.ndarray, np.ndarray]:
    """What was said of rows by a model with this threshold, as counts and row by row, and the truth."""
    outputs, truth = draw(np.random.default_rng(seed), rows, centre=centre)
    said = (outputs["probabilities"][:, 1] >= threshold).astype(int)
    outputs["label"] = np.array(CLASSES, dtype=object)[said]
    layout = OutputLayout(SPEC)
    return layout.read(len(truth), summarise(SPEC, outputs).cells[layout.cells]), said, truth


def with_quality(known: Reference, **changed: Any) -> Reference:
    """The same reference with other labelled rows."""
    assert known.quality is not None
    return msgspec.structs.replace(known, quality=msgspec.structs.replace(known.quality, **changed))


def bundle(*, threshold: float, **changed: Any) -> Reference:
    """A reference whose model has this threshold."""
    _, said, truth = answers(0, threshold=threshold, rows=20_000, centre=0.0)
    confusion = np.bincount(truth * 2 + said, minlength=4).reshape(2, 2)
    table = tuple(tuple(row) for row in confusion.tolist())
    return with_quality(reference(), confusion=table, **changed)


def test_a_threshold_off_the_middle_is_followed() -> None:
    said, named, truth = answers(6, threshold=THRESHOLD)
    found = estimate_json(bundle(threshold=THRESHOLD), said)
    assert found["precision"]["value"] == pytest.approx(truth[named == 1].mean(), abs=0.02)
    assert found["recall"]["value"] == pytest.approx(named[truth == 1].mean(), abs=0.02)
    assert "auc" in found


def test_a_bundle_of_before_tells_the_auc_only_of_a_threshold_in_the_middle() -> None:
    middle, off = (estimate_json(bundle(threshold=at, scores=None), answers(6, threshold=at)[0]) for at in (0.5, 0.25))
    assert "auc" in middle
    assert "auc" not in off
    assert off["verdict"] == "value"
    assert off["confusion"]["classes"] == list(CLASSES)


def test_answers_that_no_threshold_explains_are_judged_by_their_confidences() -> None:
    """Such as costs that depend on the row: the largest scores are not what is named."""
    plain = bundle(threshold=0.5)
    odd = with_quality(plain, confusion=((9000, 1000), (9000, 1000)))
    said = answers(6, threshold=0.5)[0]
    by_score, by_confidence = (estimate_json(one, said)["accuracy"]["value"] for one in (plain, odd))
    assert by_score != by_confidence
    assert by_confidence == pytest.approx(by_score, abs=0.02), "the labelled rows' confidences say the same here"
