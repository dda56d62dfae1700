"""True labels on the device: ids that describe themselves, the label book, and what is refused."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest

from shoal_agent.adapters.label_book import MAX_TAKEN, SqliteLabelBook, open_label_book
from shoal_agent.errors import LabelBookError
from shoal_agent.ports import LabelCount
from shoal_agent.runtime.answer_form import AnswerForm
from shoal_agent.runtime.errors import ExpiredPredictionError, LabelError, PredictionIdError, UnknownPredictionError
from shoal_agent.runtime.feedback import Feedback
from shoal_agent.runtime.prediction import Identity, Prediction
from shoal_agent.runtime.prediction_id import MAX_ROWS, Mint, model_key, read_id
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.api import Api
from shoal_agent.serving.http_message import Head
from shoal_agent.testing import FakeClock, MemorySpool
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.window_spool import WindowSpool
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec, TensorSpec
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.labels import NO_CONFIDENCE, OTHER_CLASS, error_cell

DIGEST = "sha256:" + "ab" * 32
CLASSES = AnswerForm("classes", ("bad", "good"), output="label", probabilities="probabilities")
VALUE = AnswerForm("value", span=10.0, output="y")
NOON_MS = 1_800_000_000_000


class Clock:
    """Wall time that a test moves."""

    def __init__(self) -> None:
        self.now = NOON_MS / 1000 + 10

    def __call__(self) -> float:
        return self.now


class FakeModel:
    """A model as `Feedback.follow` sees one."""

    def __init__(self, schema: ModelSchema) -> None:
        self.schema, self.spec, self.digest, self.name = schema, None, DIGEST, "quality"
        self.mint: Mint | None = None

    def predict(self, **outputs: np.ndarray) -> Prediction:
        identity = Identity("quality", "1.0", DIGEST, "0a" * 6, self.mint)
        FakeModel.serial += 1
        return Prediction(outputs, identity, FakeModel.serial, _now_ns())

    serial = 0


def _now_ns() -> int:
    import time

    return time.perf_counter_ns()


def schema(*outputs: OutputSpec) -> ModelSchema:
    return ModelSchema(
        tensors=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
        inputs=(FieldSpec(name="x", dtype="float32", tensor="x"),),
        outputs=outputs,
    )


LABEL = OutputSpec(name="label", dtype="string", shape=(None,), role="label", classes=("bad", "good"))
PROBABILITIES = OutputSpec(name="probabilities", dtype="float32", shape=(None, 2), role="probabilities")
NUMBER = OutputSpec(name="y", dtype="float32", shape=(None, 1), role="value")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book():
    book = SqliteLabelBook(":memory:")
    yield book
    book.close()


@pytest.fixture
def feedback(book, clock) -> Feedback:
    return Feedback(book, window_s=300, max_age_s=86_400, wall=clock)


def classifier(feedback: Feedback) -> FakeModel:
    model = FakeModel(schema(LABEL, PROBABILITIES))
    feedback.follow("line", model)
    return model


def said(*answers: tuple[str, float]) -> dict[str, np.ndarray]:
    return {
        "label": np.array([label for label, _ in answers], dtype=object),
        "probabilities": np.array([[p, 1 - p] for _, p in answers], np.float32),
    }


def test_a_label_is_counted_by_truth_prediction_and_confidence_in_the_window_of_its_prediction(book, feedback, clock):
    prediction_id = classifier(feedback).predict(**said(("good", 0.9))).prediction_id
    clock.now += 3600
    assert feedback.take(prediction_id, "bad") == 1
    (group,) = book.take(7)
    assert (group.slot, group.digest, group.start_ms, group.length_ms) == ("line", DIGEST, NOON_MS, 300_000)
    assert group.cells == ((0, 1, 57, 1),)
    assert group.errors is None


def test_a_label_told_twice_counts_once(book, feedback):
    prediction_id = classifier(feedback).predict(**said(("good", 0.9))).prediction_id
    assert [feedback.take(prediction_id, "good"), feedback.take(prediction_id, "bad")] == [1, 0]
    assert [group.cells for group in book.take(1)] == [((1, 1, 57, 1),)]


def test_equal_predictions_have_ids_of_their_own(feedback):
    model = classifier(feedback)
    assert len({model.predict(**said(("good", 0.9))).prediction_id for _ in range(50)}) == 50


def test_an_answer_of_many_rows_takes_a_label_a_row(book, feedback):
    model = classifier(feedback)
    rows = model.predict(**said(("good", 0.9), ("bad", 0.6), ("good", 0.51))).prediction_id
    assert feedback.take(rows, ["good", None, "bad"]) == 2
    assert feedback.take(rows, "bad", row=1) == 1
    assert feedback.take(rows, ["good", "bad", "bad"]) == 0
    (group,) = book.take(1)
    assert sorted(group.cells) == [(0, 0, 38, 1), (0, 1, 32, 1), (1, 1, 57, 1)]
    for label, row, words in (("good", None, "3 rows"), (["good"], None, "got 1 labels"), ("good", 3, "no row 3")):
        with pytest.raises(LabelError, match=words):
            feedback.take(rows, label, row=row)


def test_a_regression_counts_errors(book, feedback):
    model = FakeModel(schema(NUMBER))
    feedback.follow("line", model)
    for value, truth in ((2.0, 1.5), (3.0, 5.0)):
        assert feedback.take(model.predict(y=np.array([[value]], np.float32)).prediction_id, truth) == 1
    (group,) = book.take(1)
    assert group.errors is not None
    assert group.errors.n == 2
    assert group.errors.error == pytest.approx(-1.5)
    assert group.errors.absolute == pytest.approx(2.5)
    assert group.errors.square == pytest.approx(0.25 + 4)
    assert group.errors.truth == pytest.approx(6.5)
    assert sorted(cell for _, _, cell, _ in group.cells) == sorted((error_cell(0.5, 2.0), error_cell(-2.0, 2.0)))


@pytest.mark.parametrize("label", ["ugly", 3, None, {"a": 1}])
def test_a_label_that_is_no_class_is_refused_and_the_classes_named(feedback, label):
    prediction_id = classifier(feedback).predict(**said(("good", 0.9))).prediction_id
    with pytest.raises(LabelError) as refusal:
        feedback.take(prediction_id, label)
    assert "bad, good" in refusal.value.hint


@pytest.mark.parametrize("label", ["3.5", True, float("nan"), float("inf"), None, 10**400])
def test_a_label_that_is_no_number_is_refused(feedback, label):
    model = FakeModel(schema(NUMBER))
    feedback.follow("line", model)
    with pytest.raises(LabelError):
        feedback.take(model.predict(y=np.array([[1.0]], np.float32)).prediction_id, label)


@pytest.mark.parametrize("label", [1, 1.0, "1"])
def test_classes_that_are_numbers_are_known_as_numbers_and_texts(label):
    form = AnswerForm("classes", ("0", "1"), output="label")
    told = form.told(form.said({"label": np.array([1])}), 0, label)
    assert (told.truth, told.said, told.bin) == (1, 1, NO_CONFIDENCE)


def test_a_class_outside_the_schema_is_counted_as_said_but_never_as_true():
    told = CLASSES.told(CLASSES.said(said(("ugly", 0.7))), 0, "good")
    assert told.said == OTHER_CLASS


def test_forged_changed_foreign_and_cut_ids_are_refused(feedback, clock):
    prediction_id = classifier(feedback).predict(**said(("good", 0.9))).prediction_id
    changed = prediction_id[:20] + ("A" if prediction_id[20] != "A" else "B") + prediction_id[21:]
    stranger = Mint(b"another key", model_key("line", DIGEST), CLASSES, clock)
    foreign = stranger.make(said(("good", 0.9)), nonce="0a" * 6, serial=1, at_ns=_now_ns())
    for text in (changed, foreign):
        with pytest.raises(UnknownPredictionError):
            feedback.take(text, "good")
    for text in ("", "0a0a0a-1", prediction_id[:10], "ä" * 20, "x" * 100_000):
        with pytest.raises(PredictionIdError):
            feedback.take(text, "good")


def test_an_old_prediction_takes_no_label_any_more(feedback, clock):
    prediction_id = classifier(feedback).predict(**said(("good", 0.9))).prediction_id
    clock.now += 86_401
    with pytest.raises(ExpiredPredictionError, match=r"1\.0 days old"):
        feedback.take(prediction_id, "good")


def test_a_model_of_several_values_and_a_call_of_too_many_rows_say_so(feedback):
    two = FakeModel(schema(OutputSpec(name="y", dtype="float32", shape=(None, 2), role="value")))
    feedback.follow("line", two)
    with pytest.raises(LabelError, match="neither classes nor one number"):
        feedback.take(two.predict(y=np.ones((1, 2), np.float32)).prediction_id, 1.0)
    model = classifier(feedback)
    with pytest.raises(LabelError, match="more than 1024 rows"):
        feedback.take(model.predict(**said(*[("good", 0.9)] * (MAX_ROWS + 1))).prediction_id, "good", row=0)


def test_ids_are_short(book, feedback):
    prediction_id = classifier(feedback).predict(**said(("good", 0.9))).prediction_id
    assert len(prediction_id) <= 48
    assert read_id(book.key, prediction_id).model == model_key("line", DIGEST)


# The book ------------------------------------------------------------------------------------------------------------


def counts(*marks: int, start_ms: int = 0) -> list[LabelCount]:
    return [LabelCount(b"model", mark.to_bytes(4, "big"), start_ms, 1000, 0, 1, 2) for mark in marks]


def registered(path=":memory:") -> SqliteLabelBook:
    book = SqliteLabelBook(path)
    book.register(b"model", slot="line", digest=DIGEST, form=b"{}")
    return book


def test_counts_taken_by_a_message_that_was_not_stored_wait_again_and_add_up(tmp_path):
    book = registered(tmp_path / "labels.db")
    book.count(counts(1, 2))
    assert [group.cells for group in book.take(5)] == [((0, 1, 2, 2),)]
    assert book.waiting == 0
    book.count(counts(3))
    book.put_back(5)
    assert [group.cells for group in book.take(6)] == [((0, 1, 2, 3),)]
    book.delivered(6)
    assert book.take(7) == ()
    book.close()


@pytest.mark.parametrize(("stored", "left"), [(True, ()), (False, ((0, 1, 2, 2),))])
def test_a_start_after_a_cut_asks_the_spool_whether_the_message_was_stored(tmp_path, stored, left):
    book, spool = registered(tmp_path / "labels.db"), MemorySpool()
    book.count(counts(1, 2))
    book.take(5)
    if stored:
        spool.append(Up.PROFILE, lambda _: b"", key="labels/5")
    book.close()
    book = SqliteLabelBook(tmp_path / "labels.db")
    WindowSpool(spool, Messages(epoch=spool.epoch, boot=1, clock=FakeClock()), stored=lambda: None, labels=book)
    assert tuple(cell for group in book.take(9) for cell in group.cells) == left
    assert book.count(counts(1)) == 0, "a label doubled over a restart counts once"
    book.close()


def test_a_model_that_is_known_and_far_from_forgotten_writes_nothing(monkeypatch):
    monkeypatch.setattr("shoal_agent.adapters.label_book.MAX_MODELS", 4)
    book = registered()
    before = book._connection.total_changes
    book.register(b"model", slot="line", digest=DIGEST, form=b"{}")
    assert book._connection.total_changes == before
    for digit in b"12":
        book.register(bytes([digit]), slot="line", digest=DIGEST, form=b"{}")
    book.register(b"model", slot="line", digest=DIGEST, form=b"{}")  # renewed, since only one half may be newer
    for digit in b"345":
        book.register(bytes([digit]), slot="line", digest=DIGEST, form=b"{}")
    assert book.form(b"model") == b"{}"
    book.register(b"model", slot="line", digest=DIGEST, form=b'{"classes": 3}')
    assert book.form(b"model") == b'{"classes": 3}'
    book.close()


def test_one_message_takes_so_many_counts_and_the_oldest_first():
    book = registered()
    book.count([count for at in range(MAX_TAKEN + 10) for count in counts(at, start_ms=at)])
    taken = book.take(1)
    assert (len(taken), max(group.start_ms for group in taken)) == (MAX_TAKEN, MAX_TAKEN - 1)
    assert book.waiting == 10
    book.close()


def test_a_book_that_is_full_refuses(monkeypatch):
    book = registered()
    monkeypatch.setattr("shoal_agent.adapters.label_book.MAX_WAITING", 1)
    book.count(counts(1))
    with pytest.raises(LabelBookError, match="wait for the server"):
        book.count(counts(2))
    book.close()


def test_a_damaged_book_is_put_aside(tmp_path):
    path = tmp_path / "labels.db"
    path.write_bytes(b"no database at all" * 400)
    book = open_label_book(path)
    book.register(b"model", slot="line", digest=DIGEST, form=b"{}")
    assert book.count(counts(1)) == 1
    book.close()
    assert (tmp_path / "labels.db.damaged").exists()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM counts").fetchone() == (1,)
    db.close()


# The route -----------------------------------------------------------------------------------------------------------


def post(api: Api, document: object) -> tuple[int, dict]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {"host": "localhost"}
    head = Head("POST", "/v1/feedback", {}, headers, len(body), keep_alive=True, expects_continue=False)
    answer = api.answerer(head)(body)
    return answer.status, json.loads(answer.body)


def test_the_route_takes_one_label_or_a_list_and_tells_what_it_refused(feedback):
    api = Api(SlotTable(), feedback=feedback)
    ids = [classifier(feedback).predict(**said(("good", 0.9))).prediction_id for _ in range(3)]
    assert post(api, {"prediction_id": ids[0], "label": "good"}) == (
        200,
        {"accepted": 1, "doubled": 0, "refused": []},
    )
    listed = [{"prediction_id": one, "label": label} for one, label in zip(ids, ("good", "bad", "ugly"), strict=True)]
    status, told = post(api, listed)
    assert (status, told["accepted"], told["doubled"]) == (200, 1, 1)
    assert [(one["index"], one["code"]) for one in told["refused"]] == [(2, "label")]


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        (b"no json", 400, "request"),
        ([], 400, "request"),
        ({"prediction_id": "x"}, 400, "request"),
        ({"prediction_id": "x", "label": 1, "lable": 2}, 400, "request"),
        ({"prediction_id": "x", "label": 1}, 400, "prediction_id"),
    ],
)
def test_the_route_says_what_is_wrong(feedback, document, status, code):
    answer = post(Api(SlotTable(), feedback=feedback), document)
    assert (answer[0], answer[1]["code"]) == (status, code)


def test_without_a_server_labels_are_refused_with_the_reason():
    status, told = post(Api(SlotTable()), {"prediction_id": "x", "label": 1})
    assert (status, "not taken here" in told["detail"]) == (404, True)
