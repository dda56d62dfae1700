"""Which tensors a learner looks at, and that it holds on to no model."""

from __future__ import annotations

import gc
import logging
import weakref

import numpy as np
import pytest

from shoal_agent.runtime.followers import Followed
from shoal_agent.runtime.learner import MOST_ROWS, Learner
from shoal_agent.testing import FakeClock
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.profile.streams import MOST_COLUMNS

SCHEMA = ModelSchema(
    tensors=(
        TensorSpec(name="x", dtype="float32", shape=(None, 1)),
        TensorSpec(name="words", dtype="float32", shape=(None, None)),
    ),
    inputs=(
        FieldSpec(name="age", dtype="float32", tensor="x", column=0),
        FieldSpec(name="words", dtype="float32", tensor="words"),
    ),
    outputs=(
        OutputSpec(name="found", dtype="float32", shape=(None, None), role="other"),
        OutputSpec(name="embedding", dtype="float32", shape=(None, MOST_COLUMNS + 1), role="other"),
        OutputSpec(name="p", dtype="float32", shape=(None, 100), role="probabilities"),
        OutputSpec(name="y", dtype="float32", shape=(None,), role="value"),
    ),
)


class Model(Followed):
    """What a learner sees of an active model."""

    schema = SCHEMA

    def answer(self, rows: int, *, width: int) -> None:
        feeds = {"x": np.arange(rows, dtype=np.float32)[:, None], "words": np.ones((rows, width), np.float32)}
        outputs = {
            "found": np.ones((rows, width), np.float32),
            "embedding": np.ones((rows, MOST_COLUMNS + 1), np.float32),
            "p": np.full((rows, 100), 0.01, np.float32),
            "y": np.ones(rows, np.float32),
        }
        for follower in self.followers:
            follower.answered(feeds, outputs, 1000)


def learner(model: Model) -> Learner:
    made = Learner(model, seconds=0.0, monotonic=FakeClock())
    made.start()
    return made


@pytest.mark.parametrize("calls", [3, MOST_ROWS // 50], ids=["all kept", "thinned"])
def test_tensors_of_varying_or_great_width_are_left_alone(calls, caplog):
    model = Model()
    made = learner(model)
    with caplog.at_level(logging.ERROR):
        for call in range(calls):
            model.answer(100, width=1 + call % 3)
    assert (caplog.records, made.is_done) == ([], True)
    assert set(made.sketches()) == {"in:age", "out:p", "out:y:0"}
    assert {name for kept in made._kept for name in kept} == {"x", "p", "y"}, "nothing else is copied"


def test_a_model_that_was_swapped_out_is_not_held():
    model = Model()
    made = learner(model)
    assert made.is_of(model)
    model.answer(300, width=1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert not made.is_of(Model())
    assert made.sketches()["in:age"].n == 300
    made.stop()
