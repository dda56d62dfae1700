"""Networks of PyTorch in files: a .pt2 holds an exported program; .pt, .pth and .ckpt a pickled network, or weights.

A .pt2 is read by torch.export.load, which unpickles some of what is inside and evaluates its symbolic shapes: it runs
code, so it needs the caller's trust like any pickle (https://docs.pytorch.org/docs/stable/export.html). What is in a
.pt is told from its archive without loading anything: weights alone name storages and little else, a network (as
MLflow's pickles are) the classes of its layers.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from shoal_converter.errors import LibraryMissingError, SourceError
from shoal_converter.sources.tensor_model import TensorModel

SUFFIXES = (".pt", ".pth", ".ckpt", ".ts", ".torchscript")

_EXPORT = (
    "torch.export.save(torch.export.export(network.eval(), (rows,), dynamic_shapes=({0: torch.export.Dim('rows')},)), "
    "'network.pt2'), and pack the .pt2; or give the network itself to pack() in Python"
)


def read_program(path: Path) -> TensorModel:
    """Read an exported program and bring it to what devices run.

    Raises:
        SourceError: It is no such file, or a newer PyTorch wrote it.
        LibraryMissingError: PyTorch is not installed.
        UnsupportedModelError: It can't be exported; says why.
    """
    torch = _imported(path)
    from shoal_converter.sources.torch_source import quiet, read_torch  # noqa: PLC0415 - with PyTorch only

    if not any(name.endswith("archive_format") for name in _names(path)):
        raise no_program(path)
    try:
        with quiet():
            program = torch.export.load(path)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise SourceError(
            f"torch.export can't load {path.name}: {reason}",
            hint=f"was it written by torch.export.save of this version ({torch.__version__}) or an older one?",
        ) from error
    return read_torch(program, None)


def _imported(path: Path) -> Any:
    try:
        import torch.export  # noqa: PLC0415 - heavy, optional
    except ImportError as error:
        raise LibraryMissingError(
            f"{path.name} is a program of PyTorch, which is not installed here",
            hint="pip install 'shoal-converter[torch]' (the CPU build: --index-url https://download.pytorch.org/whl/cpu)",
        ) from error
    return torch


def holds_network(path: Path) -> bool:
    """Tell whether a file of PyTorch is a pickle of a whole network: one that names a layer or a class of others."""
    try:
        with ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return name is not None and any(map(_is_layer, _classes(archive.read(name))))
    except (BadZipFile, OSError, ValueError):  # of PyTorch before 1.6, or no pickle
        return False


def _classes(pickled: bytes) -> list[str]:
    """Return what a pickle names, by its own instructions (https://docs.python.org/3/library/pickletools.html)."""
    found, texts = [], [""]
    for code, argument, _ in pickletools.genops(pickled):
        if code.name in {"GLOBAL", "INST"}:
            found.append(str(argument).replace(" ", ".", 1))
        elif code.name == "STACK_GLOBAL":
            found.append(".".join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
    return found


def _is_layer(name: str) -> bool:
    return name.startswith(("torch.nn.modules.", "cloudpickle.")) and not name.endswith("Parameter")


def read_network(path: Path) -> Any:
    """Run the pickle of a network and return it, in the processor's memory.

    Raises:
        SourceError: A class that it is made of is not here, or it is no network.
        LibraryMissingError: PyTorch is not installed.
    """
    torch = _imported(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise SourceError(
            f"{path.name} can't be loaded: {reason}",
            hint="is the code of its classes installed, or its folder in PYTHONPATH?",
        ) from error
    if not isinstance(found, torch.nn.Module):
        raise no_program(path)
    return found


def no_program(path: Path) -> SourceError:
    """Return what is said of a file of PyTorch that holds no exported program."""
    names = _names(path)
    if any("/code/" in name for name in names):
        return SourceError(
            f"{path.name} is TorchScript, whose exporter PyTorch has given up",
            hint=f"from the network that it was made from: {_EXPORT}",
        )
    return SourceError(
        f"{path.name} is a checkpoint: it holds weights, not the network that they belong to",
        hint=f"build the network in Python, network.load_state_dict(…), then {_EXPORT}",
    )


def _names(path: Path) -> list[str]:
    try:
        with ZipFile(path) as archive:
            return archive.namelist()
    except (BadZipFile, OSError):  # of PyTorch before 1.6
        return []
