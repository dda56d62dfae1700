"""``reference.json``: what a reader gets back, and what it refuses."""

import json

import numpy as np
import pytest

from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import CategoricalGrid, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise, zero
from shoal_protocol.profile.quality import Figure, Quality, Segment
from shoal_protocol.profile.reference import Reference, encode_reference, parse_reference


def reference(**fields) -> Reference:
    spec = ProfileSpec((Stream("score", "output", unit_interval_grid(), "p", 0),))
    return Reference(spec, summarise(spec, {"p": np.array([[0.2], [0.9]], np.float32)}), **fields)


QUALITY = Quality(
    data="validation",
    n=3,
    classes=("a", "b"),
    bins=2,
    answered=((1, 0), (0, 2)),
    correct=((1, 0), (0, 1)),
    confusion=((1, 1), (0, 1)),
)


def test_what_was_written_is_read() -> None:
    part = Segment(by={"site": "bern"}, n=2, metrics={"accuracy": Figure(value=1 / 3, low=0.1, high=0.9)})
    found = parse_reference(
        encode_reference(reference(quality=QUALITY, segments=(part,), sources={"metrics": "validation"}))
    )
    assert found.quality == QUALITY
    assert found.segments[0].metrics["accuracy"].value == 0.333333
    assert found.sources == {"metrics": "validation"}


def test_a_regressors_errors_are_rounded() -> None:
    written = encode_reference(reference(quality=Quality(data="sample", n=2, error_mean=1 / 3, error_std=2 / 3)))
    assert parse_reference(written).quality == Quality(data="sample", n=2, error_mean=0.333333, error_std=0.666667)


def test_a_bundle_of_before_has_neither() -> None:
    document = json.loads(encode_reference(reference()))
    for name in ("quality", "segments", "sources"):
        del document[name]
    found = parse_reference(json.dumps(document).encode())
    assert (found.quality, found.segments, found.sources) == (None, (), {})


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("answered", [[1, 0]], "answered is no table of 2 x 2"),
        ("correct", [[1, 0], [0, 3]], "more rows than were answered"),
        ("scores", {"rows": [1], "positive": [0]}, "two rows of 2 counts"),
        ("scores", {"rows": [1, 2], "positive": [0, 3]}, "more rows than there are"),
        ("confusion", [[1, -1], [0, 1]], "negative"),
        ("correct", [], "together"),
    ],
)
def test_counts_that_do_not_fit_each_other_are_refused(field: str, value: object, says: str) -> None:
    document = json.loads(encode_reference(reference(quality=QUALITY)))
    document["quality"][field] = value
    with pytest.raises(ContentError, match=says):
        parse_reference(json.dumps(document).encode())


@pytest.mark.parametrize("table", [[], [[1, 2]], [[-1] * 4], [[2**63] * 4], "no table"])
def test_counts_by_answer_that_do_not_fit_are_refused(table: object) -> None:
    spec = ProfileSpec((Stream("label", "output", CategoricalGrid(("a", "b")), "label"),))
    document = json.loads(encode_reference(Reference(spec, zero(spec))))
    assert "by_answer" not in document
    with pytest.raises(ContentError):
        parse_reference(json.dumps({**document, "by_answer": table}).encode())
    good = json.dumps({**document, "by_answer": [[0, 0, 3, 0], [0, 0, 0, 5]]}).encode()
    assert parse_reference(good).by_answer == ((0, 0, 3, 0), (0, 0, 0, 5))
