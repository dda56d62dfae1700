"""Networks of PyTorch as sources: a Module or an ExportedProgram.

Owns the export (torch.export, then torch.onnx on top of it) in eval mode with any number of rows, and the truth: the
network itself, run eagerly. PyTorch is imported only for its own models.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import LibraryMissingError, SampleError, UnsupportedModelError
from shoal_converter.sources.tensor_model import TensorModel, tensor_model

Array = npt.NDArray[Any]

_OPSET = 18
_EXPORTED_ROWS = 4
_INSTALL = "pip install 'shoal-converter[torch]'"


def is_torch(model: Any) -> bool:
    """Tell whether something is a network of PyTorch, without importing it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    exported = getattr(sys.modules.get("torch.export"), "ExportedProgram", ())
    return isinstance(model, (torch.nn.Module, exported))


def read_torch(model: Any, sample: Any) -> TensorModel:
    """Export a network.

    Args:
        model: Module or ExportedProgram; a Module is run in eval mode, and left as it was.
        sample: One array, or arrays by the names of forward()'s arguments; rows first. A Module is exported by running
            it; a program needs none.

    Raises:
        SampleError: There are fewer than two rows, or the network itself fails on them.
        UnsupportedModelError: It can't be exported; says why.
        LibraryMissingError: onnxscript is not installed.
    """
    import torch  # noqa: PLC0415 - heavy, optional

    module = model if isinstance(model, torch.nn.Module) else None
    with _evaluating(module):
        program = model if module is None else _program(module, *_arguments(module, sample))
        graph = _graph(program)
    names = [info.name for info in graph.graph.input]
    outputs = [info.name for info in graph.graph.output]
    own = program.module() if module is None else module
    tree = torch.utils._pytree  # noqa: SLF001 - what torch.export itself flattens by

    def run(tensors: Mapping[str, Array]) -> dict[str, Array]:
        fed = [torch.from_numpy(np.array(tensors[name])) for name in names]
        with _evaluating(module), torch.no_grad():
            try:
                arguments, named = tree.tree_unflatten(fed, program.call_spec.in_spec)
                found = own(*arguments, **named)
            except Exception as error:
                raise SampleError(f"the network itself fails on the sample: {_first_line(error)}") from error
        leaves = tree.tree_leaves(found)
        return {name: leaf.detach().cpu().numpy() for name, leaf in zip(outputs, leaves, strict=True)}

    return tensor_model(graph, framework="pytorch", run=lambda _: run)


def _arguments(module: Any, sample: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return a few rows of the sample as tensors: by position, or by name."""
    if sample is None:
        raise SampleError("a sample is required: the network is exported by running it", hint="give sample=X")
    if isinstance(sample, Mapping):
        return [], {str(name): _tensor(module, values) for name, values in sample.items()}
    return [_tensor(module, sample)], {}


def _tensor(module: Any, values: Any) -> Any:
    import torch  # noqa: PLC0415 - heavy, optional

    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.ndim == 0 or len(array) < 2:
        raise SampleError(f"the sample has shape {array.shape}, expected at least two rows", hint="give 100 or more")
    tensor = torch.from_numpy(np.array(array[:_EXPORTED_ROWS]))
    first = None if module is None else next((p for p in module.parameters() if p.is_floating_point()), None)
    return tensor.to(torch.float32 if first is None else first.dtype) if tensor.is_floating_point() else tensor


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put a Module and all inside it into eval mode for a time."""
    modes = [] if module is None else [(each, each.training) for each in module.modules()]
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's warnings to itself for a time: what fails is an exception, and said by us."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _program(module: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    import torch.export  # noqa: PLC0415 - heavy, optional

    rows = torch.export.Dim("rows", min=1)
    shapes: Any = {name: {0: rows} for name in named} if named else tuple({0: rows} for _ in arguments)
    try:
        with quiet():
            return torch.export.export(module, tuple(arguments), named, dynamic_shapes=shapes)
    except Exception as error:
        raise UnsupportedModelError(
            type(module).__name__,
            f"torch.export can't trace it for any number of rows: {_first_line(error)}",
            "leave branches on values and fixed numbers of rows out of forward(), or export it yourself to .onnx",
        ) from error


def _graph(program: Any) -> Any:
    import torch.onnx  # noqa: PLC0415 - heavy, optional

    try:
        with quiet(), redirect_stdout(sys.stderr):
            made = torch.onnx.export(program, (), dynamo=True, opset_version=_OPSET, verbose=False)
    except ModuleNotFoundError as error:
        raise LibraryMissingError(f"exporting from PyTorch needs {error.name}", hint=_INSTALL) from error
    except Exception as error:
        raise UnsupportedModelError(
            "network",
            f"torch.onnx can't export it: {_first_line(error)}",
            "replace that operation by ones that ONNX has; torch.onnx.export(…, report=True) lists them all",
        ) from error
    return made.model_proto


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
