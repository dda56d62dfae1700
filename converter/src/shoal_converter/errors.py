"""What can go wrong between a trained model and a bundle, and the exit code each gives.

Owns the converter's error types. Each belongs to one of the protocol's families, by who has to act.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from shoal_protocol.errors import CallerError, ContentError, LocalError, PeerError, ShoalError, TrustError

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_PARITY, EXIT_UNSUPPORTED, EXIT_SIGNATURE, EXIT_NETWORK = range(7)


class ConverterError(ShoalError):
    """Root of the converter's errors."""

    exit_code: ClassVar[int] = EXIT_FAILED


class SampleError(ConverterError, CallerError):
    """The sample or the labels don't fit the model, or can't be read."""

    exit_code = EXIT_USAGE
    code = "sample"


class SourceError(ConverterError, CallerError):
    """What was given as a model can't be used as one: not fitted, no model at all, a file of an unknown kind."""

    exit_code = EXIT_USAGE
    code = "source"


class UntrustedPickleError(SourceError):
    """A pickle is a program; it runs only when the caller says that its origin is trusted."""

    code = "untrusted_pickle"


class UntrustedTypesError(SourceError):
    """A file of skops holds types that nobody said are harmless.

    Attributes:
        types: Their full names.
    """

    code = "untrusted_types"

    def __init__(self, file: str, types: Sequence[str]) -> None:
        listed = ", ".join(types)
        super().__init__(
            f"{file} holds types that are not known to be harmless: {listed}",
            hint="if you know what they do, add " + " ".join(f"--trust-type {name}" for name in types),
            types=list(types),
        )
        self.types = tuple(types)


class NotIsolatedError(ConverterError, LocalError):
    """A program could not be shut off from network and files, and the caller did not say that it may run so."""

    code = "not_isolated"


class OutputExistsError(ConverterError, CallerError):
    """Something is at the place where the bundle should go."""

    exit_code = EXIT_USAGE
    code = "output_exists"


class UnsupportedModelError(ConverterError, ContentError):
    """A step of the model has no exact form in ONNX.

    Attributes:
        step: Path of the step, such as ``preprocess.num.spline``.
        why: What is missing.
        way_round: What gives a model that converts.
    """

    exit_code = EXIT_UNSUPPORTED
    code = "unsupported"

    def __init__(self, step: str, why: str, way_round: str, **data: Any) -> None:
        super().__init__(f"step {step}: {why}", hint=way_round, step=step, why=why, way_round=way_round, **data)
        self.step = step
        self.why = why
        self.way_round = way_round


class ParityError(ConverterError, ContentError):
    """The converted model answers otherwise than its source.

    Attributes:
        step: First step whose output differs, or the whole model.
        report: The comparison, as in the bundle's parity statement; ``data`` in it says on which rows.
    """

    exit_code = EXIT_PARITY
    code = "parity"

    def __init__(
        self, message: str, *, step: str, report: dict[str, Any], hint: str = "", data: str = "sample"
    ) -> None:
        super().__init__(message, hint=hint, step=step, report=report, data=data)
        self.step = step
        self.report = report


class VariantRefusedError(ConverterError, ContentError):
    """A form of the model that was asked for by name is not near enough, gains nothing, or can't be built.

    Attributes:
        figures: What was measured.
    """

    code = "variant"

    def __init__(self, variant: str, why: str, *, figures: dict[str, Any] | None = None) -> None:
        super().__init__(
            f"variant {variant}: {why}",
            hint=f"leave --variant {variant} out, or ask for auto, which keeps only what pays",
            variant=variant,
            figures=figures or {},
        )
        self.figures = figures or {}


class MemoryBudgetError(ConverterError, ContentError):
    """The model takes more memory than devices allow one of its size that declares no budget."""

    code = "memory_budget"


class LibraryMissingError(ConverterError, LocalError):
    """An optional library is needed for this input."""

    code = "library_missing"


class RegistryError(ConverterError, PeerError):
    """The registry can't be reached, or broke off."""

    exit_code = EXIT_NETWORK
    code = "network"


class RegistryRefusedError(ConverterError, PeerError):
    """The registry answered, and said no."""

    code = "refused"


class KeyUnusableError(ConverterError, LocalError):
    """A signing key is not there, or does not open."""

    exit_code = EXIT_SIGNATURE
    code = "key"


class SignatureError(ConverterError, TrustError):
    """Bytes are not those that a digest names, or nobody signed them."""

    exit_code = EXIT_SIGNATURE
    code = "signature"
