"""Networks of PyTorch in files: a .pt2 holds an exported program; .pt, .pth and .ckpt mostly hold no whole network.

A .pt2 is read by torch.export.load, which unpickles some of what is inside and evaluates its symbolic shapes: it runs
code, so it needs the caller's trust like any pickle (https://docs.pytorch.org/docs/stable/export.html). What is in a
.pt is told from the names in its archive, without loading anything.
"""

from __future__ import annotations

from pathlib import Path
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
    try:
        import torch.export  # noqa: PLC0415 - heavy, optional
    except ImportError as error:
        raise LibraryMissingError(
            f"{path.name} is a program of PyTorch, which is not installed here",
            hint="pip install 'shoal-converter[torch]' (the CPU build: --index-url https://download.pytorch.org/whl/cpu)",
        ) from error
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
