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
def test_tensors_of_varying_width_are_left_alone_and_of_great_width_only_digests_kept(calls, caplog):
    model = Model()
    made = learner(model)
    with caplog.at_level(logging.ERROR):
        for call in range(calls):
            model.answer(100, width=1 + call % 3)
    assert (caplog.records, made.is_done) == ([], True)
    told = made.sketches()
    assert {key for key in told if not key.startswith("wide:")} == {"in:age", "out:p", "out:y:0"}
    assert {key.split(":")[1] for key in told if key.startswith("wide:")} == {"embedding"}
    assert {name for kept in made._plain._kept for name in kept} == {"x", "p", "y"}, "nothing else is copied"


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


def test_of_wide_tensors_a_few_rows_are_looked_at_as_seldom_as_spares_the_caller():
    model = Model()
    clock = FakeClock()
    made = Learner(model, seconds=10.0, monotonic=clock)
    made.start()
    looks = []
    made._digests["wide:embedding"] = lambda values: looks.append(len(values)) or clock.move(0.001) or values[:, :1]
    for _ in range(100):
        model.answer(64, width=1)  # a look costs 1 ms, so it is taken every 50 ms
        clock.move(0.009)
    assert set(looks) == {16}
    assert 15 <= len(looks) <= 20
    assert made._plain.rows > 200, "the other columns are looked at in every call"
    assert not made.is_done, "three windows are not over"
    clock.move(10.0)
    assert made.is_done


def test_wide_tensors_that_hardly_come_are_not_waited_for_without_end():
    model = Model()
    clock = FakeClock()
    made = Learner(model, seconds=10.0, monotonic=clock)
    made.start()
    model.answer(1000, width=1)
    clock.move(11.0)
    assert not made.is_done
    clock.move(30.0)
    assert made.is_done


def test_a_model_with_nothing_to_look_at_is_done_at_once():
    model = Model()
    model.schema = ModelSchema(
        tensors=(TensorSpec(name="words", dtype="float32", shape=(None, None)),), inputs=SCHEMA.inputs[1:], outputs=()
    )
    made = learner(model)
    assert made.is_done
    assert made.sketches() == {}


def test_long_texts_do_not_fill_the_memory():
    schema = ModelSchema(
        tensors=(TensorSpec(name="note", dtype="string", shape=(None, 1)),),
        inputs=(FieldSpec(name="note", dtype="string", tensor="note"),),
        outputs=(),
    )
    model = Model()
    model.schema = schema
    made = learner(model)
    for at in range(100):
        made.answered({"note": np.array([[f"{at} " * 5000] * 10], dtype=object).reshape(10, 1)}, {}, 1)
    assert made.is_done
    assert sum(len(text) for kept in made._plain._kept for text in kept["note"].ravel()) < 10_000_000
    assert made._plain.rows >= 200
