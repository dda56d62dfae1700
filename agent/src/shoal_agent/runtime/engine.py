"""onnxruntime, opened the one way that Shoal allows: from bytes, with explicit threads, without telemetry.

Owns the session's options and what the graph says of its tensors. Models are loaded from bytes and never from a path,
because a path would let external-data references reach other files. Thread counts are always set: the default spins
all cores (5.3 ms of CPU per prediction at 200 Hz, against 0.11).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.domain.providers import CPU, KNOWN
from shoal_agent.errors import UnfitError
from shoal_agent.runtime.errors import ModelLoadError
from shoal_protocol.bundle.layout import MODEL_ONNX

_log = logging.getLogger(__name__)
Array = npt.NDArray[Any]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate", "MemoryError")


class GraphTensor(msgspec.Struct, frozen=True):
    """An input or output of the graph; none in the shape stands for any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def is_static(self) -> bool:
        """Whether a row of it is numbers of a fixed count."""
        return self.dtype != "string" and len(self.shape) > 0 and None not in self.shape[1:]


def import_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry off: its wheels since 1.29 would start a thread and open a connection."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415  (costs 60 ms; --help must not pay)

    return onnxruntime


def available_providers() -> tuple[str, ...]:
    """Return the execution providers that the installed onnxruntime has, without the one that sends inputs to a cloud.

    Azure's comes with every wheel.
    """
    names: list[str] = import_onnxruntime().get_available_providers()
    return tuple(name for name in names if name in KNOWN)


class Engine:
    """One onnxruntime session.

    Args:
        model: The ONNX file's bytes.
        threads: Threads within an operator; 1 starts none.
        providers: Execution providers, the best first; what one can't do, or one that does not start, is left to the
            next.
        form: Path of the file inside the bundle.

    Raises:
        MemoryError: There is not enough memory for it.
        ModelLoadError: onnxruntime refuses the model, or it has inputs or outputs that are no tensors.
        UnfitError: None of the providers could be started, and the processor is not among them.
    """

    def __init__(
        self, model: bytes, *, threads: int = 1, providers: Sequence[str] = (CPU,), form: str = MODEL_ONNX
    ) -> None:
        self.form = form
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = runtime.InferenceSession(model, options, providers=list(providers))
        except Exception as error:
            if ran_out_of_memory(error):
                raise MemoryError(f"onnxruntime {runtime.__version__} can't load the model: {error}") from error
            raise ModelLoadError(
                f"onnxruntime {runtime.__version__} refuses the model: {error}",
                hint="convert it again with shoal-convert, or update onnxruntime on this device",
            ) from error
        self.providers = tuple(self.session.get_providers())
        """What runs it, the best first; onnxruntime always adds the processor at the end."""
        if CPU not in providers and not {*providers} & {*self.providers}:
            raise UnfitError(
                f"none of {', '.join(providers)} could be started here",
                hint="see the agent's log for onnxruntime's reason, or add cpu to the setting `providers`",
            )
        self.fallback = "" if providers[0] in self.providers else f"{providers[0]} could not be started"
        """Why the first of the providers does not run it; empty: it does."""
        if self.fallback:
            _log.warning("%s; the model runs on %s", self.fallback, self.providers[0])
        self.inputs = tuple(_tensor(meta) for meta in self.session.get_inputs())
        self.outputs = tuple(_tensor(meta) for meta in self.session.get_outputs())
        self.output_names = [output.name for output in self.outputs]
        self._options = runtime.RunOptions()  # of every run: onnxruntime would else make some each time
        self._options.log_severity_level = 4  # what fails is raised, and logged once by whoever was asked
        # no captured graphs, as ever: the class looks for it, and not finding it costs 28 us (onnxruntime 1.31)
        self._options.add_run_config_entry("gpu_graph_id", "-1")
        self._run = self._direct("run") or self.session.run
        self._run_bound = self._direct("run_with_iobinding")

    def run(self, feeds: Mapping[str, Array]) -> Sequence[Array]:
        """Run the graph; onnxruntime itself validates names, dtypes and shapes and raises its own errors."""
        outputs: Sequence[Array] = self._run(self.output_names, feeds, self._options)
        return outputs

    def bound(self, binding: Any) -> Callable[[], Any]:
        """Return what runs the graph on the memory of an IOBinding of this session."""
        below = getattr(binding, "_iobinding", None)
        if self._run_bound is None or below is None:
            return partial(self.session.run_with_iobinding, binding, self._options)
        return partial(self._run_bound, below, self._options)

    def cut_off(self) -> None:
        """Let every run that is under way end with an error, and every later one, for good.

        onnxruntime looks between two operators, and at each turn of a loop; a single operator that never ends goes on.
        """
        self._options.terminate = True

    @property
    def is_cut_off(self) -> bool:
        """Whether it was."""
        return bool(self._options.terminate)

    def _direct(self, name: str) -> Any:
        """Return a call of the session below its Python class, or none where it has no such thing, or needs the class.

        The class looks at each call for graphs that WebGPU has captured and for feeds that are missing, and falls back
        from other providers to the processor: 0.5 to 1 us that a model on the processor has no use for.
        """
        below = getattr(self.session, "_sess", None)
        return getattr(below, name, None) if self.providers == (CPU,) else None


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory could not be had; onnxruntime passes on what C++ says."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def zeros(tensor: GraphTensor, rows: int = 1) -> Array:
    """Return an input of zeros (or empty texts), every open size being `rows` in front and 1 elsewhere."""
    first, *rest = tensor.shape or (1,)
    shape = (first or rows, *(size or 1 for size in rest)) if tensor.shape else ()
    if tensor.dtype == "string":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=tensor.dtype)


def _tensor(meta: Any) -> GraphTensor:
    dtype = _DTYPES.get(meta.type)
    if dtype is None:
        raise ModelLoadError(
            f"{meta.name!r} is a {meta.type}; a bundle's inputs and outputs are tensors of {', '.join(_DTYPES)}",
            hint="convert it with shoal-convert, which leaves no maps or sequences",
        )
    return GraphTensor(meta.name, dtype, tuple(size if isinstance(size, int) else None for size in meta.shape))
