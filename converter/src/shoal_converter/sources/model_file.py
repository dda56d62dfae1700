"""What kind of model a file holds, whether loading it runs code, and how it is loaded.

Owns the table of kinds by their names' endings, and what to do about files that hold no whole model. Loading happens in
the child process alone (`isolated_child`); each kind's reader imports its framework then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoal_converter.errors import SourceError, UntrustedPickleError
from shoal_converter.sources.native_file import SUFFIXES as NATIVE
from shoal_converter.sources.onnx_source import SUFFIX as ONNX
from shoal_converter.sources.tensorflow_file import is_saved_model
from shoal_converter.sources.torch_file import SUFFIXES as TORCH_WITHOUT_PROGRAM
from shoal_converter.sources.torch_file import holds_network, no_program

Trust = Literal["isolated", "unisolated"]
"""Whether a program may run with network and other people's files in reach, where it can't be shut off from them."""

Reader = Literal["pickle", "skops", "native", "onnx", "torch", "network", "keras", "saved_model"]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        reader: Who reads it.
        what: For messages.
        program: Whether loading it runs what its author put inside.
        program_if_trusted: Whether it does once the caller trusts it, and else is loaded without.
    """

    reader: Reader
    what: str
    program: bool = False
    program_if_trusted: bool = False

    def runs_code(self, *, trust: Trust | None) -> bool:
        """Tell whether what the author put inside runs with this trust."""
        return self.program or (self.program_if_trusted and trust is not None)


_PICKLE = Kind("pickle", "a pickle", program=True)
_NETWORK = Kind("network", "a pickled network of PyTorch", program=True)
_SAVED_MODEL = Kind("saved_model", "a SavedModel of TensorFlow", program=True)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys((".joblib", ".pkl", ".pickle"), _PICKLE),
    ".skops": Kind("skops", "a file of skops"),
    **{suffix: Kind("native", "a model of a boosting framework") for suffix in NATIVE},
    ONNX: Kind("onnx", "an ONNX model"),
    ".pt2": Kind("torch", "an exported program of PyTorch", program=True),
    **dict.fromkeys((".keras", ".h5"), Kind("keras", "a model of Keras", program_if_trusted=True)),
}
SUFFIXES = tuple(_KINDS)

_ELSE: dict[str, tuple[str, str]] = {
    ".safetensors": ("holds weights only", "build the network in Python, load them, and give it to pack()"),
    ".tflite": ("is made for TensorFlow Lite", "pack the .keras or SavedModel that it was made from"),
    ".pb": ("is one part of a SavedModel", "give the folder that it lies in"),
    ".pmml": ("describes a model in PMML", "pack the estimator that it was made from"),
    ".mar": ("is an archive of TorchServe", "torch.export.save the network inside, and pack the .pt2"),
    ".ipynb": ("is a notebook", "in it: from shoal_converter import pack; pack(model, sample=X, tag='name:1.0.0')"),
    ".py": ("is a script", "in it: from shoal_converter import pack; pack(model, sample=X, tag='name:1.0.0')"),
}


def kind_of(path: Path) -> Kind:
    """Return what a path holds, by its name.

    Raises:
        SourceError: It isn't there, or holds no whole model; says what to do.
    """
    if is_saved_model(path):
        return _SAVED_MODEL
    if path.is_dir():
        raise SourceError(
            f"{path} is a folder without a model that is known",
            hint="a folder is one that MLflow wrote (with MLmodel), or a SavedModel (with saved_model.pb)",
        )
    if not path.is_file():
        raise SourceError(f"there is no model file {path}", hint="joblib.dump(model, 'model.joblib') writes one")
    suffix = path.suffix.lower()
    if suffix in _KINDS:
        return _KINDS[suffix]
    if suffix in TORCH_WITHOUT_PROGRAM and holds_network(path):
        return _NETWORK
    if suffix in TORCH_WITHOUT_PROGRAM:
        raise no_program(path)
    if suffix in _ELSE:
        what, cure = _ELSE[suffix]
        raise SourceError(f"{path.name} {what}", hint=cure)
    raise SourceError(
        f"{path.name} is of no known kind", hint=f"models come from {', '.join(SUFFIXES)}, or from pack() in Python"
    )


def check_trusted(path: Path, *, trust: Trust | None) -> Kind:
    """Return what a path holds; refuse a program that the caller did not say is trusted.

    Raises:
        SourceError: There is no such file, or it is of no kind that is known.
        UntrustedPickleError: Loading it runs code, and `trust` is not set.
    """
    kind = kind_of(path)
    if kind.program and trust is None:
        raise UntrustedPickleError(
            f"{path.name} is {kind.what}: loading it runs whatever code its author put inside",
            hint="if you know where it comes from, add --trust: it is then loaded in a child process of its own",
        )
    return kind


def load_model(path: Path, *, trust: Trust | None = None, trusted_types: Sequence[str] = ()) -> Any:
    """Load a model: an estimator, a `TensorModel`, or a network that is exported by running it.

    Args:
        path: File or folder.
        trust: Whether code in it may run.
        trusted_types: Types that a file of skops may hold beside those known.

    Raises:
        SourceError: It can't be read.
        LibraryMissingError: Its framework is not installed; says what to install.
        UnsupportedModelError: Devices can't run what it is made of.
    """
    kind = check_trusted(path, trust=trust)
    if kind.reader == "pickle":
        from shoal_converter.sources.pickle_file import load_pickle  # noqa: PLC0415 - each reader brings its framework

        return load_pickle(path)
    if kind.reader == "skops":
        from shoal_converter.sources.skops_file import load_skops  # noqa: PLC0415

        return load_skops(path, trusted=trusted_types)
    if kind.reader == "native":
        from shoal_converter.sources.native_file import load  # noqa: PLC0415

        return load(path)
    if kind.reader == "torch":
        from shoal_converter.sources.torch_file import read_program  # noqa: PLC0415

        return read_program(path)
    if kind.reader == "network":
        from shoal_converter.sources.torch_file import read_network  # noqa: PLC0415

        return read_network(path)
    if kind.reader == "keras":
        from shoal_converter.sources.tensorflow_file import read_keras_file  # noqa: PLC0415

        return read_keras_file(path, trusted=trust is not None)
    if kind.reader == "saved_model":
        from shoal_converter.sources.tensorflow_file import read_saved_model  # noqa: PLC0415

        return read_saved_model(path)
    from shoal_converter.sources.onnx_source import read_onnx  # noqa: PLC0415

    return read_onnx(path)
