"""Which execution providers of onnxruntime run a model here: by the bundle's hint, or as the device is configured.

The hint is the variant's list, the best first. A configured list takes its place for every bundle: a form that is made
for the processor is plain ONNX, which any provider takes, and whether the numbers come out right there the self-test
says. Leaves starting them to `shoal_agent.runtime.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

CPU: Final = "CPUExecutionProvider"

_SUFFIX = "ExecutionProvider"
_KNOWN = (
    "ACL", "CANN", "CPU", "CUDA", "CoreML", "Dml", "Dnnl", "MIGraphX", "NvTensorRTRTX", "OpenVINO", "QNN", "Rknpu",
    "Tensorrt", "VSINPU", "VitisAI", "WebGpu", "Xnnpack",
)  # fmt: skip
"""Azure is left out on purpose: it would send the inputs to a cloud."""

KNOWN: Final = tuple(f"{name}{_SUFFIX}" for name in _KNOWN)


class Placement(msgspec.Struct, frozen=True):
    """Where a model is to run.

    Attributes:
        names: Providers to give to onnxruntime, the best first; empty: it can't run here.
        missing: Providers that were wanted before the first of these, but that this onnxruntime lacks.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...] = ()


def placement(hint: Sequence[str], *, wanted: Sequence[str] | None, available: Sequence[str]) -> Placement:
    """Choose the providers of one variant.

    Args:
        hint: The variant's providers.
        wanted: What the device is configured to; none: follow the hint.
        available: What the installed onnxruntime has.

    >>> placement([CPU], wanted=["CUDAExecutionProvider", CPU], available=[CPU])
    Placement(names=('CPUExecutionProvider',), missing=('CUDAExecutionProvider',))
    """
    order = list(dict.fromkeys(hint if wanted is None else wanted))
    if wanted is not None and not {*hint} & {*wanted, CPU}:
        return Placement(())  # made for other hardware
    usable = [name for name in order if name in available and name in KNOWN]
    before = order[: order.index(usable[0])] if usable else order
    return Placement(tuple(usable), tuple(before))


def parse_providers(text: str) -> tuple[str, ...] | None:
    """Parse a setting: names with commas between, long or short, in any case; ``auto``: none.

    >>> parse_providers("cuda, CPUExecutionProvider")
    ('CUDAExecutionProvider', 'CPUExecutionProvider')

    Raises:
        ValueError: A name is unknown, or there is none.
    """
    if text.strip().lower() == "auto":
        return None
    known = {name.lower(): f"{name}{_SUFFIX}" for name in _KNOWN}
    return tuple(dict.fromkeys(_named(part, known) for part in text.split(",")))


def _named(part: str, known: dict[str, str]) -> str:
    try:
        return known[part.strip().lower().removesuffix(_SUFFIX.lower())]
    except KeyError:
        raise ValueError(f"{part.strip()!r} is no execution provider that this agent knows") from None
