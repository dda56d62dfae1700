"""The routes of the local interface: which path asks for what, and how an error is told.

Owns names and status codes; the wire forms are `inference_protocol`'s and `plain_rows`', the socket is `http`'s. Every
answer of a model names the bundle's version and digest.

    GET  /v2  /v2/health/live  /v2/health/ready  /v2/models
    GET  /v2/models/{slot}[/versions/{version}][/ready]
    POST /v2/models/{slot}[/versions/{version}]/infer
    POST /v1/predict[?slot=NAME]
    POST /v1/feedback
    GET  /metrics
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shoal_agent.errors import NoModelError
from shoal_agent.runtime.errors import InferenceError, LabelError, PredictionIdError
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving import inference_protocol as protocol
from shoal_agent.serving.http_message import Answer, Head, HttpError, Response
from shoal_agent.serving.labels import take_labels
from shoal_agent.serving.metrics import CONTENT_TYPE, exposition
from shoal_agent.serving.plain_rows import answer_rows, as_json, parse_rows
from shoal_agent.serving.row_table import RowTable
from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import CallerError, LocalError, ShoalError

if TYPE_CHECKING:
    from shoal_agent.runtime.feedback import Feedback

_log = logging.getLogger(__name__)
_PROBLEM = "application/problem+json"


class Api:
    """Answers requests from a device's slots.

    Args:
        slots: The models.
        hosts: Names that a request may address in ``Host``; none: any. On loopback this refuses a web page that reaches
            us under a name of its own (DNS rebinding).
        feedback: Takes labels; none: there is nobody to tell them to.
    """

    def __init__(
        self, slots: SlotTable, *, hosts: frozenset[str] | None = None, feedback: Feedback | None = None
    ) -> None:
        self._slots = slots
        self._hosts = hosts
        self._feedback = feedback
        self._tables: dict[str, RowTable] = {}  # of schemas, not models: who holds a model holds its memory

    def answerer(self, head: Head) -> Answer:
        """Return what answers the bodies that come with a head; every error becomes an answer too.

        What depends on the head alone is looked at here, once for all requests that repeat it. The model is not: each
        body is answered by the one that is active then.
        """
        try:
            self._guard(head)
            answer = self._route(head)
        except Exception as error:  # noqa: BLE001  (the loop's boundary, as below)
            refusal = _refusal(head, error)
            return lambda _body: refusal

        def safely(body: bytes) -> Response:
            try:
                return answer(body)
            except Exception as error:  # noqa: BLE001  (a bad request must not end the connection's thread)
                return _refusal(head, error)

        return safely

    def _guard(self, head: Head) -> None:
        """Refuse web pages: they may send what looks like a plain request to any port of this machine."""
        if "origin" in head.headers:
            raise HttpError(403, "requests from web pages are not answered", hint="call it from a program, not a page")
        if self._hosts is not None and _host_name(head.headers.get("host", "")) not in self._hosts:
            raise HttpError(
                403, f"Host is {head.headers.get('host', '')!r:.80}, expected {' or '.join(sorted(self._hosts))}"
            )

    def _route(self, head: Head) -> Answer:
        match head.path.strip("/").split("/"):
            case ["v2", "models", slot, *rest]:
                return self._model_route(head, slot, rest)
            case ["v1", "predict"]:
                return _only(head, "POST", lambda body: self._predict(head, body))
            case ["v1", "feedback"]:
                return _only(head, "POST", self._take_labels)
            case ["v2"]:
                return _only(head, "GET", lambda _: _json(protocol.server_metadata(_own_version())))
            case ["v2", "health", "live"]:
                return _only(head, "GET", lambda _: _json({"live": True}))
            case ["v2", "health", "ready"]:
                return _only(head, "GET", lambda _: self._ready())
            case ["v2", "models"]:
                return _only(head, "GET", lambda _: self._models())
            case ["metrics"]:
                return _only(head, "GET", lambda _: Response(200, exposition(self._slots.observed()), CONTENT_TYPE))
        raise HttpError(
            404, f"there is no {head.path!r:.120} here", hint="see /v2, /v2/models, /v1/predict, /v1/feedback, /metrics"
        )

    def _model_route(self, head: Head, slot: str, rest: Sequence[str]) -> Answer:
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match list(rest):
            case ["infer"]:
                json_length = _json_length(head)
                return _only(head, "POST", lambda body: self._infer(slot, version, body, json_length))
            case ["ready"]:
                return _only(head, "GET", lambda _: _json({"name": slot, "ready": bool(self._model(slot, version))}))
            case []:
                return _only(head, "GET", lambda _: self._metadata(slot, version))
        raise HttpError(404, f"a model has no {'/'.join(rest)!r:.80}", hint="see /infer, /ready and the model itself")

    def _model(self, slot: str, version: str | None) -> LoadedModel:
        model = self._slots.get(slot)
        if model is None:
            names = ", ".join(self._slots.names()) or "none"
            raise HttpError(404, f"there is no model in slot {slot!r:.80}; slots with a model: {names}")
        if version is not None and version != model.version:
            raise HttpError(404, f"slot {slot!r:.80} runs version {model.version}, not {version!r:.80}")
        return model

    def _infer(self, slot: str, version: str | None, body: bytes, json_length: int | None) -> Response:
        model = self._model(slot, version)
        request = protocol.parse_infer(body, json_length)
        prediction = model.predict(request.tensors)
        parameters = {"digest": model.digest, "prediction_id": prediction.prediction_id}
        answer = protocol.InferAnswer(slot, model.version, prediction.outputs, parameters)
        payload, before_binary = protocol.encode_infer(answer, request)
        if before_binary is None:
            return Response(200, payload)
        headers = {"Inference-Header-Content-Length": str(before_binary)}
        return Response(200, payload, "application/octet-stream", headers)

    def _predict(self, head: Head, body: bytes) -> Response:
        slot = head.query.get("slot") or self._only_slot()
        model = self._model(slot, None)
        feeds = self._table(slot, model.schema).read(body)
        prediction = model.predict_rows(parse_rows(body)) if feeds is None else model.predict(feeds)
        return _json(
            {
                "slot": slot,
                "bundle": prediction.bundle,
                "version": prediction.version,
                "digest": prediction.digest,
                "prediction_id": prediction.prediction_id,
                "predictions": answer_rows(prediction.outputs, model.schema),
            }
        )

    def _table(self, slot: str, schema: ModelSchema) -> RowTable:
        table = self._tables.get(slot)
        if table is None or table.schema is not schema:
            table = self._tables[slot] = RowTable(schema)
        return table

    def _take_labels(self, body: bytes) -> Response:
        if self._feedback is None:
            raise HttpError(
                404,
                "labels are not taken here",
                hint="they go to a server: join one, then `shoal-agent run --state DIR`",
            )
        return _json(take_labels(self._feedback, body))

    def _only_slot(self) -> str:
        names = self._slots.names()
        if not names:
            raise NoModelError("no slot has a model yet", hint="see `shoal-agent status`")
        if len(names) > 1:
            raise HttpError(400, f"there are {len(names)} slots; say which: ?slot={names[0]}", hint=", ".join(names))
        return names[0]

    def _ready(self) -> Response:
        names = self._slots.names()
        if not names:
            raise NoModelError("no slot has a model", hint="see `shoal-agent status`")
        return _json({"ready": True})

    def _models(self) -> Response:
        models = [(slot, model) for slot in self._slots.names() if (model := self._slots.get(slot)) is not None]
        return _json(
            {"models": [{"name": s, "bundle": m.name, "version": m.version, "digest": m.digest} for s, m in models]}
        )

    def _metadata(self, slot: str, version: str | None) -> Response:
        model = self._model(slot, version)
        document = protocol.model_metadata(slot, model.version, model.schema)
        return _json({**document, "parameters": {"bundle": model.name, "digest": model.digest}})


def problem(error: ShoalError) -> Response:
    """Return an error as problem+json (RFC 9457), with ``error`` for clients of the inference protocol."""
    status = _status(error)
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "error": error.message,
    }
    if error.hint:
        document["hint"] = error.hint
    if "faults" in error.data:
        document["faults"] = error.data["faults"]
    headers = {"Allow": error.allow} if isinstance(error, HttpError) and error.allow else {}
    return Response(status, as_json(document), _PROBLEM, headers)


def _status(error: ShoalError) -> int:
    if isinstance(error, (HttpError, PredictionIdError, LabelError)):
        return error.status
    if isinstance(error, NoModelError):
        return 503
    if isinstance(error, CallerError):
        return 400
    return 500 if isinstance(error, (InferenceError, LocalError)) else 502


def _refusal(head: Head, error: Exception) -> Response:
    if isinstance(error, ShoalError):
        return problem(error)
    _log.exception("a request failed: %s %s", head.method, head.path)
    return problem(LocalError("the agent failed on this request; its log says why"))


def _only(head: Head, method: str, answer: Answer) -> Answer:
    if head.method == method or (method == "GET" and head.method == "HEAD"):
        return answer
    allow = "GET, HEAD" if method == "GET" else method
    raise HttpError(405, f"{head.path!r:.120} takes {allow}, not {head.method}", allow=allow)


def _json_length(head: Head) -> int | None:
    """Return how many bytes of the body are JSON; none: all of them."""
    text = head.headers.get(protocol.HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HttpError(400, f"Inference-Header-Content-Length is {text!r:.40}, expected a number")
    return int(text)


def _own_version() -> str:
    import importlib.metadata  # noqa: PLC0415  (1 MB with the email package, for one seldom asked number)

    return importlib.metadata.version("shoal-agent")


def _json(document: Mapping[str, Any]) -> Response:
    return Response(200, as_json(document))


def _host_name(host: str) -> str:
    """Return the name of a Host header without its port, as sent: ``[::1]`` keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
