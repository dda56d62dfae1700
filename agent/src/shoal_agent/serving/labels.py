"""The body of ``POST /v1/feedback``, and what is answered to it.

One label, ``{"prediction_id": "…", "label": "good"}``, or a list of them; ``row`` says which row of an answer of many.
A single label that can't be taken is an error; of a list the others are taken, and each refusal is told with its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shoal_agent.runtime.errors import LabelError, PredictionIdError
from shoal_agent.serving.inference_protocol import RequestError

if TYPE_CHECKING:
    from shoal_agent.runtime.feedback import Feedback

MAX_LABELS = 10_000


class PostedLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One label as posted."""

    prediction_id: str
    label: Any
    row: int | None = None


_one = msgspec.json.Decoder(PostedLabel)
_many = msgspec.json.Decoder(list[PostedLabel])


def take_labels(feedback: Feedback, body: bytes) -> dict[str, Any]:
    """Take the labels of a body: ``{accepted, doubled, refused: [{index, code, detail}]}``.

    Raises:
        RequestError: It is no label and no list of labels.
        PredictionIdError, LabelError: The only label was refused, or every one of a list.
        LocalError: Labels can't be kept now; none after the last one counted was.
    """
    posted = _parsed(body)
    accepted = doubled = 0
    refused: list[tuple[int, PredictionIdError | LabelError]] = []
    for index, one in enumerate(posted):
        try:
            new = feedback.take(one.prediction_id, one.label, row=one.row)
        except (PredictionIdError, LabelError) as error:
            refused.append((index, error))
        else:
            accepted += new
            doubled += not new
    if len(refused) == len(posted):
        raise refused[0][1]
    told = [{"index": index, "code": error.code, "detail": error.message} for index, error in refused]
    return {"accepted": accepted, "doubled": doubled, "refused": told}


def _parsed(body: bytes) -> list[PostedLabel]:
    try:
        posted = _many.decode(body) if body.lstrip()[:1] == b"[" else [_one.decode(body)]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(
            f"the body is no label: {error}", hint='expected {"prediction_id": "…", "label": "good"}, or a list of such'
        ) from error
    if not 0 < len(posted) <= MAX_LABELS:
        raise RequestError(f"the body has {len(posted)} labels, expected 1 to {MAX_LABELS}")
    return posted
