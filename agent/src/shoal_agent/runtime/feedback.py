"""True labels coming back: from a prediction's id to one count, in time and once.

Owns the checks and their refusals; what is counted is `answer_form`'s, where it is kept the label book's. Rows and
labels themselves are kept nowhere: only counts ever leave the device.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from shoal_agent.ports import LabelBook, LabelCount
from shoal_agent.runtime.answer_form import AnswerForm
from shoal_agent.runtime.errors import ExpiredPredictionError, LabelError, UnknownPredictionError
from shoal_agent.runtime.prediction_id import MAX_ROWS, Mint, Said, model_key, read_id
from shoal_protocol.errors import LocalError

if TYPE_CHECKING:
    from shoal_agent.runtime.model import LoadedModel

_log = logging.getLogger(__name__)


class Feedback:
    """Takes labels for one device's predictions.

    Args:
        book: Keeps the counts.
        window_s: Length of the windows by which predictions are counted.
        max_age_s: Older predictions take no label any more.
        wall: Seconds since the epoch.
    """

    def __init__(
        self, book: LabelBook, *, window_s: float, max_age_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._book = book
        self._window_ms = max(1, round(window_s * 1000))
        self._max_age_s = max_age_s
        self._wall = wall

    def follow(self, slot: str, model: LoadedModel) -> None:
        """Give a model's predictions ids that labels can name, from now on; never fails an installation."""
        form = AnswerForm.of(model.schema, model.spec)
        key = model_key(slot, model.digest)
        try:
            self._book.register(key, slot=slot, digest=model.digest, form=msgspec.json.encode(form))
        except LocalError:
            _log.exception("the label book took no model: labels of %s can't be told now", model.name)
            return
        model.mint = Mint(self._book.key, key, form, self._wall)

    def take(self, prediction_id: str, label: object, *, row: int | None = None) -> int:
        """Count the true label of a prediction.

        Args:
            prediction_id: Of the answer.
            label: The class as the model names it, or the number; for an answer of many rows a list of one label a row,
                None where a row's is not known.
            row: Which row of the answer `label` is of, from 0; none: the only one.

        Returns:
            How many labels were new; a label given twice counts once.

        Raises:
            PredictionIdError: The id is none of this device's, or too old.
            LabelError: The label does not fit the model, or the number of labels the rows.
            LocalError: It can't be kept: the disk is full, or too many wait for the server.
        """
        said = read_id(self._book.key, prediction_id)
        form = self._form(said)
        rows = len(said.answers) // form.row_bytes
        counts = []
        for at, one in _labelled(label, row=row, rows=rows):
            told = form.told(said.answers, at, one)
            start_ms = said.at_ms // self._window_ms * self._window_ms
            mark = said.mark + at.to_bytes(2, "big")
            counts.append(
                LabelCount(said.model, mark, start_ms, self._window_ms, told.truth, told.said, told.bin, told.errors)
            )
        return self._book.count(counts)

    def _form(self, said: Said) -> AnswerForm:
        age_s = self._wall() - said.at_ms / 1000
        if age_s > self._max_age_s:
            raise ExpiredPredictionError(
                f"the prediction is {age_s / 86_400:.1f} days old, labels are taken for {self._max_age_s / 86_400:g}",
                hint="the setting feedback.days says how long",
            )
        raw = self._book.form(said.model)
        if raw is None:
            raise UnknownPredictionError("this device no longer knows the model of that prediction")
        form = msgspec.json.decode(raw, type=AnswerForm)
        if form.kind == "none":
            raise LabelError("this model gives neither classes nor one number a row: labels can't be compared with it")
        if not said.answers:
            raise LabelError(f"the call had more than {MAX_ROWS} rows", hint="predict fewer rows a call to label them")
        return form


def _labelled(label: object, *, row: int | None, rows: int) -> Sequence[tuple[int, object]]:
    """Return (row, label) pairs.

    Raises:
        LabelError: Labels and rows don't match.
    """
    if row is not None:
        if not 0 <= row < rows:
            raise LabelError(f"there is no row {row}: the call had {rows}, counted from 0")
        return [(row, label)]
    if isinstance(label, list):
        if len(label) != rows:
            raise LabelError(f"the call had {rows} rows, got {len(label)} labels", hint="null: a row without a label")
        return [(at, one) for at, one in enumerate(label) if one is not None]
    if rows != 1:
        raise LabelError(f"the call had {rows} rows", hint="say which: row, or a list of one label a row")
    return [(0, label)]
