"""How much memory a model may take where its bundle declares none: one rule for the machine that packs and the device.

A device tests a model in a process with a limit, so that a few bytes of ONNX that ask for gigabytes do no harm. Where
the bundle declares a budget, that counts; else the limit follows from the model's size. onnxruntime takes several times
a model's file while it loads it: the integers of a tree ensemble are written in one to three bytes each and held in
eight, several times over (measured: 16 bytes of memory for a byte of a forest with 280,000 nodes), and a network needs
room for its activations.
"""

from __future__ import annotations

BYTES_PER_MODEL_BYTE = 24
FLOOR_BYTES = 64 << 20


def memory_allowance(model_bytes: int, declared: int | None) -> int:
    """Return what a model may take beside interpreter, numpy and onnxruntime, in bytes.

    Args:
        model_bytes: Size of its ONNX file.
        declared: The bundle's ``memory_budget_bytes``; it can only widen the limit of the test, for loading a model
            takes more for a moment than keeping it, which is what the budget is held to afterwards.
    """
    return max(declared or 0, FLOOR_BYTES + BYTES_PER_MODEL_BYTE * model_bytes)
