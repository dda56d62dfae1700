"""Trained model in, verified and reproducible bundle out.

    from shoal_converter import pack
    bundle = pack(model, sample=X, y=y, tag="quality:1.4.0")
    bundle.push("http://127.0.0.1:8080", token=...)

Names are loaded when first used, so that the command line starts quickly.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal_converter.bundle import Bundle
    from shoal_converter.domain.parity import Tolerance
    from shoal_converter.errors import ConverterError, ParityError, SampleError, SourceError, UnsupportedModelError
    from shoal_converter.pack_options import PackOptions
    from shoal_converter.packing import pack, to_onnx

__all__ = [
    "Bundle",
    "ConverterError",
    "PackOptions",
    "ParityError",
    "SampleError",
    "SourceError",
    "Tolerance",
    "UnsupportedModelError",
    "pack",
    "to_onnx",
]

_HOMES = {
    "Bundle": "bundle",
    "Tolerance": "domain.parity",
    "ConverterError": "errors",
    "ParityError": "errors",
    "SampleError": "errors",
    "SourceError": "errors",
    "UnsupportedModelError": "errors",
    "PackOptions": "pack_options",
    "pack": "packing",
    "to_onnx": "packing",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415 - loading lazily is this function's purpose

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
