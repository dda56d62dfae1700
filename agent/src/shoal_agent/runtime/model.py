"""A bundle's model, loaded: checks inputs, predicts, and tells its observer.

Invariants: everything that belongs to one version (session, schema, observer, each thread's buffers) hangs on this one
object, so that whoever holds it answers from one version only; what `predict` returns belongs to the caller.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.domain.providers import CPU
from shoal_agent.errors import UnfitError
from shoal_agent.runtime.batching import Batcher, Batching, is_exact_together
from shoal_agent.runtime.bundle_files import BundleFiles
from shoal_agent.runtime.calls import CallsUnderWay
from shoal_agent.runtime.conversion import shown
from shoal_agent.runtime.engine import Engine, GraphTensor, import_onnxruntime, zeros
from shoal_agent.runtime.errors import Fault, InferenceError, InputError, ModelLoadError
from shoal_agent.runtime.followers import Followed
from shoal_agent.runtime.inputs import InputPlan, check_rows
from shoal_agent.runtime.memory import trim_heap
from shoal_agent.runtime.observer import Observer
from shoal_agent.runtime.prediction import Identity, Prediction
from shoal_agent.runtime.prediction_id import Mint
from shoal_agent.runtime.self_test import GoldenRows, SelfTest, always_numbers, read_golden, run_self_test
from shoal_agent.runtime.static_binding import StaticBinding, is_eligible, is_worthwhile
from shoal_protocol.bundle.layout import BUNDLE_JSON, MODEL_ONNX, REFERENCE_JSON, SCHEMA_JSON
from shoal_protocol.bundle.schema import BundleInfo, ModelSchema, parse_bundle_info, parse_schema
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.contract import contract_streams
from shoal_protocol.profile.counting import Counting, rules_hash
from shoal_protocol.profile.derivation import TEXTS
from shoal_protocol.profile.grid import NumericGrid
from shoal_protocol.profile.profile import ProfileSpec
from shoal_protocol.profile.reference import parse_reference

Array = npt.NDArray[Any]
_log = logging.getLogger(__name__)


class _PerThread(threading.local):
    binding: StaticBinding | None = None
    is_ready: bool = False

    def __init__(self, calls: CallsUnderWay) -> None:  # in each thread that comes
        self.call = calls.mark()


class LoadedModel(Followed):
    """One version of a model, ready to answer.

    Args:
        engine: The session.
        info: ``bundle.json``.
        schema: ``schema.json``.
        digest: The bundle's.
        spec: What is counted; none where the bundle has no reference.
        golden: The self-test rows; none where the bundle has none.
        beside: What is counted beyond the bundle; none: nothing.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        info: BundleInfo,
        schema: ModelSchema,
        digest: str,
        spec: ProfileSpec | None = None,
        golden: GoldenRows | None = None,
        beside: Counting | None = None,
    ) -> None:
        super().__init__()
        _check_graph(engine, schema)
        self.own_spec = spec
        """Of the bundle's own reference."""
        if spec is None and beside is not None:
            spec = beside.spec
        _check_spec(engine, spec)
        self.engine = engine
        self.info = info
        self.schema = schema
        self.digest = digest
        self.spec = spec
        self.golden = golden
        self.counting = beside
        self.counted_by: str | None = None
        """Digest of the document by which more is counted than the bundle says."""
        rules = (*schema.contract, *(beside.rules if beside is not None else ()))
        streams = contract_streams(rules, schema.inputs)
        numbers = always_numbers(golden) if golden is not None else frozenset()
        self.observer = Observer(spec, rules=tuple(zip(rules, streams, strict=True)), numbers=numbers)
        self.observer.rules_hash = rules_hash(beside.rules) if beside is not None else ""
        self.plan = InputPlan(schema)
        self._identity = Identity(info.name, info.version, digest, os.urandom(6).hex())
        self._serials = itertools.count()
        self._names = engine.output_names
        self._exact = [(t.name, np.dtype(t.dtype), len(t.shape)) for t in engine.inputs if t.dtype != "string"]
        self._has_text = len(self._exact) < len(engine.inputs)
        places = {name: at for at, name in enumerate(self._names)}
        self._taps = [(name, places.get(name)) for name in self.observer.tensors]
        self._calls = CallsUnderWay()
        self._thread = _PerThread(self._calls)
        self.fallback = engine.fallback
        """Why it does not run on the provider that was wanted first; empty: it does."""
        self._batcher: Batcher | None = None
        looks_whole = bool(self.observer.whole_tensors)
        self._binds = not (self.plan.looks_at_values or looks_whole) and is_eligible(engine) and self._binding_pays()

    @classmethod
    def load(
        cls, files: BundleFiles, *, variant: str = MODEL_ONNX, threads: int | None = None,
        providers: Sequence[str] = (CPU,), batching: Batching | None = None,
    ) -> LoadedModel:  # fmt: skip
        """Load a bundle.

        Args:
            files: The bundle's files.
            variant: Path of the executable form inside the bundle.
            threads: Threads within an operator; none: as the bundle says (1, where it doesn't).
            providers: Execution providers, the best first.
            batching: How far calls at the same time are answered together; none: each by itself.

        Raises:
            ContentError: A file is missing or does not parse; `ModelLoadError` when onnxruntime refuses the model or
                the graph isn't what schema and reference say; `UnfitError` when onnxruntime is too old here.
            TrustError: A file's bytes are not the signed ones.
        """
        info = parse_bundle_info(files.read(BUNDLE_JSON))
        schema = parse_schema(files.read(SCHEMA_JSON))
        spec = parse_reference(files.read(REFERENCE_JSON)).spec if files.has(REFERENCE_JSON) else None
        _check_runtime_version(info)
        engine = Engine(files.read(variant), threads=threads or info.runtime.threads, providers=providers, form=variant)
        golden = read_golden(files, info, schema, variant=variant)
        model = cls(engine, info=info, schema=schema, digest=files.digest, spec=spec, golden=golden)
        if batching is not None:
            model.batch(batching)
        trim_heap()  # without collecting: loading leaves nothing that refers to itself, and a start would pay 10 ms
        return model

    def counting_also(self, beside: Counting | None, digest: str | None) -> LoadedModel:
        """Return this model with another observer: the same session, ids and totals.

        Args:
            beside: What is counted beyond the bundle; none: nothing.
            digest: Of the document that says so.

        Raises:
            ModelLoadError: It names what the model lacks.
        """
        other = LoadedModel(
            self.engine,
            info=self.info,
            schema=self.schema,
            digest=self.digest,
            spec=self.own_spec,
            golden=self.golden,
            beside=beside,
        )
        other.counted_by = digest
        other.fallback = self.fallback
        other._identity, other._serials = self._identity, self._serials
        other._calls, other._thread = self._calls, _PerThread(self._calls)
        if self._batcher is not None:
            other._batcher, other._binds = self._batcher, False
        other.observer.continue_from(self.observer)
        return other

    @property
    def is_unlearnt(self) -> bool:
        """Whether it came without data, and nobody has fixed yet what is counted of it."""
        return self.spec is None

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.info.name

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.info.version

    @property
    def mint(self) -> Mint | None:
        """What makes the ids of its predictions; none: no label can be given for them."""
        return self._identity.mint

    @mint.setter
    def mint(self, mint: Mint) -> None:
        self._identity = msgspec.structs.replace(self._identity, mint=mint)

    def batch(self, batching: Batching) -> bool:
        """Answer calls at the same time together, if that gives the same bytes; call it before the first prediction.

        Returns:
            Whether it does. Not where the golden rows come out otherwise together than alone, or there are none.
        """
        if self.golden is None or not is_exact_together(self.engine, self.golden.inputs, rows=batching.max_rows):
            _log.warning(
                "%s:%s answers each call by itself: its golden rows %s", self.name, self.version,
                "are missing" if self.golden is None else "come out otherwise in a batch",
            )  # fmt: skip
            return False
        self._batcher, self._binds = Batcher(self.engine.run, batching), False
        return True

    @property
    def batching(self) -> Batching | None:
        """How far calls at the same time are answered together; none: each by itself."""
        return None if self._batcher is None else self._batcher.limits

    @property
    def is_fast_at_one_row(self) -> bool:
        """Whether single rows take the static binding."""
        return self._binds

    def predict(self, inputs: Mapping[str, Any]) -> Prediction:
        """Answer.

        Args:
            inputs: Every input tensor by name, rows first; or every feature by name, each an array or list of one value
                a row. Exact dtypes cost nothing, others are converted where only precision can be lost.

        Returns:
            Each output by name, rows first.

        Raises:
            InputError: The inputs do not fit the schema; says field, what was expected and what came.
            InferenceError: The model failed.
        """
        start = perf_counter_ns()
        thread = self._thread
        call = thread.call
        call.since_ns = start
        try:
            binding = thread.binding
            if binding is not None:
                try:
                    outputs = binding.run(inputs)
                except Exception:  # noqa: BLE001  (the plain run, below, says what is wrong)
                    outputs = None
                if outputs is not None:
                    elapsed_ns = perf_counter_ns() - start
                    self.observer.answered_row(binding.observed_row(), elapsed_ns)
                    for follower in self.followers:
                        follower.answered(inputs, outputs, elapsed_ns)
                    return Prediction(outputs, self._identity, next(self._serials), start)
            return self._predict_plain(inputs, start)
        finally:
            call.since_ns = 0

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> Prediction:
        """Answer rows of plain values, ``[{"age": 34, "city": "Bern"}]``; a missing value is None.

        Raises:
            InputError: A row does not fit the schema.
            InferenceError: The model failed.
        """
        try:
            feeds = self.plan.row_feeds(rows)
        except InputError:
            self.observer.refused()
            raise
        except (TypeError, AttributeError):
            self.observer.refused()
            check_rows(rows)
            raise
        return self.predict(feeds)

    def running_s(self) -> float:
        """Return for how many seconds the oldest call is under way; 0 when there is none."""
        return self._calls.oldest_s(perf_counter_ns())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph and tell nobody: for self-tests."""
        return dict(zip(self._names, self.engine.run(feeds), strict=True))

    def self_test(self, golden: GoldenRows | None = None) -> SelfTest:
        """Run golden rows, the bundle's own unless others are given.

        Raises:
            ContentError: The bundle has none.
        """
        golden = golden or self.golden
        if golden is None:
            raise ContentError(f"{self.name}:{self.version} has no golden rows", hint="pack it again")
        return run_self_test(self.run, golden)

    def _predict_plain(self, inputs: Mapping[str, Any], start: int) -> Prediction:
        feeds = self._feeds(inputs)
        first = next(iter(feeds.values()), None)
        rows = len(first) if first is not None and first.ndim else 0
        try:
            outputs = self.engine.run(feeds) if self._batcher is None else self._batcher.run(feeds, rows)
        except Exception as error:
            self._explain(feeds, error)
            raise
        elapsed_ns = perf_counter_ns() - start
        self._observe(feeds, outputs, rows, elapsed_ns)
        if self._binds and not self._thread.is_ready:
            self._thread.is_ready = True
            self._thread.binding = self._bind()
        answer = dict(zip(self._names, outputs, strict=True))
        for follower in self.followers:
            follower.answered(feeds, answer, elapsed_ns)
        return Prediction(answer, self._identity, next(self._serials), start)

    def _feeds(self, inputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return the inputs themselves when they look exact: onnxruntime checks them faster than we could."""
        try:
            if not self._has_text and hasattr(inputs, "keys") and len(inputs) == len(self._exact):
                for name, dtype, rank in self._exact:
                    array = inputs.get(name)
                    if type(array) is not np.ndarray or array.dtype != dtype or array.ndim != rank or not array.size:
                        break
                else:
                    if self.plan.has_rules:
                        self.plan.check_rules(inputs)
                    return inputs
            if not hasattr(inputs, "keys"):
                raise InputError([Fault("inputs", "a mapping from names to arrays", shown(inputs))])
            feeds = self.plan.feeds(inputs)
            empty = [name for name, array in feeds.items() if not array.size]
            if empty:
                raise InputError([Fault(name, "at least one row", "none") for name in empty])
        except InputError:
            self.observer.refused()
            raise
        return feeds

    def _explain(self, feeds: Mapping[str, Array], error: Exception) -> None:
        try:
            self.plan.explain(feeds)
        except InputError:
            self.observer.refused()
            raise
        self.observer.failed()
        if self.engine.is_cut_off:
            raise InferenceError(
                f"{self.name}:{self.version} was cut off, because a call of it did not end",
                hint="ask again: the model before it answers",
            ) from error
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
        raise InferenceError(
            f"{self.name}:{self.version} failed on {shapes}: {error}",
            hint="the input fits the schema, so the fault is the model's: try `shoal-agent rollback`",
        ) from error

    def _observe(self, feeds: Mapping[str, Array], outputs: Sequence[Array], rows: int, elapsed_ns: int) -> None:
        tensors = [feeds[name] if at is None else outputs[at] for name, at in self._taps]
        self.observer.answered(tensors, rows, elapsed_ns)

    def _example(self) -> dict[str, Array]:
        if self.golden is not None and self.golden.rows:
            return self.golden.row(0)
        return {tensor.name: zeros(tensor) for tensor in self.engine.inputs}

    def _bind(self) -> StaticBinding:
        tensors = {tensor.name: zeros(tensor) for tensor in (*self.engine.inputs, *self.engine.outputs)}
        layout = self.observer.layout_for([tensors[name] for name, _ in self._taps])
        return StaticBinding(self.engine, self.observer.tensors, layout, no_nan=self.plan.no_nan)

    def _checked_run(self, feeds: Mapping[str, Array]) -> Sequence[Array]:
        self.plan.check_rules(feeds)
        return self.engine.run(feeds)

    def _binding_pays(self) -> bool:
        try:
            return is_worthwhile(self._checked_run, self._bind(), self._example())
        except Exception:  # noqa: BLE001  (a model that can't be bound is answered by the plain run)
            return False


def _check_graph(engine: Engine, schema: ModelSchema) -> None:
    expected = {tensor.name: tensor.dtype for tensor in schema.tensors}
    got = {tensor.name: tensor.dtype for tensor in engine.inputs}
    outputs = {output.name for output in schema.outputs} - set(engine.output_names)
    if expected != got or outputs:
        raise ModelLoadError(
            f"the model takes {got} and gives {engine.output_names}; "
            f"schema.json says {expected} and {[output.name for output in schema.outputs]}",
            hint="the bundle's documents are not of this model: pack it again",
        )


def _check_spec(engine: Engine, spec: ProfileSpec | None) -> None:
    tensors: dict[str, GraphTensor] = {tensor.name: tensor for tensor in (*engine.inputs, *engine.outputs)}
    for stream in spec.streams if spec is not None else ():
        about = f"reference.json: stream {stream.name!r}"
        tensor = tensors.get(stream.tensor)
        if tensor is None:
            raise ModelLoadError(f"{about} names {stream.tensor!r}, which the model lacks")
        if not stream.is_known:
            continue  # from a newer converter: it is left uncounted
        of_text = stream.derive in TEXTS or (stream.derive == "value" and not isinstance(stream.grid, NumericGrid))
        if tensor.dtype == "string" and not of_text:
            raise ModelLoadError(f"{about} counts numbers, but {stream.tensor!r} is text")
        if tensor.dtype != "string" and stream.derive in TEXTS:
            raise ModelLoadError(f"{about} counts texts, but {stream.tensor!r} is {tensor.dtype}")
        width = int(np.prod([size or 1 for size in tensor.shape[1:]]))
        if stream.column is None and stream.derive == "value" and width != 1 and None not in tensor.shape:
            raise ModelLoadError(f"{about} names no column of {stream.tensor!r}, which has {width}")
        if stream.column is not None and None not in tensor.shape[1:] and not 0 <= stream.column < width:
            raise ModelLoadError(f"{about} names column {stream.column} of {width}")


def _check_runtime_version(info: BundleInfo) -> None:
    here = import_onnxruntime().__version__
    if _numbers(here) < _numbers(info.runtime.min_onnxruntime):
        raise UnfitError(
            f"{info.name}:{info.version} needs onnxruntime {info.runtime.min_onnxruntime}, this device has {here}",
            hint="update the agent",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, enough to order releases."""
    parts = itertools.takewhile(str.isdigit, version.split("."))
    return tuple(int(part) for part in parts)
