"""What a caller gave as a model: a fitted estimator, or a model over named tensors.

Owns the one dispatch between the two, so that packing asks once.
"""

from __future__ import annotations

from typing import Any

from shoal_converter.sample import make_sample
from shoal_converter.sources.boosting.models import as_estimator
from shoal_converter.sources.estimator import check_estimator
from shoal_converter.sources.keras_source import is_keras, read_keras
from shoal_converter.sources.onnx_source import is_onnx, read_onnx
from shoal_converter.sources.tensor_model import TensorModel
from shoal_converter.sources.torch_source import is_torch, read_torch


def checked_model(model: Any, sample: Any) -> Any:
    """Return a fitted estimator, or a `TensorModel`.

    Args:
        model: As a caller gave it.
        sample: Rows, for those that are exported by running them.

    Raises:
        SourceError: It is no model, or not fitted.
        UnsupportedModelError: Devices can't run what it is made of.
    """
    if isinstance(model, TensorModel):
        return model
    if is_onnx(model):
        return read_onnx(model)
    if is_torch(model):
        return read_torch(model, sample)
    if is_keras(model):
        return read_keras(model, sample)
    model = as_estimator(model)
    check_estimator(model)
    return model


def rows_in(model: Any, sample: Any) -> int:
    """Return the number of rows of a sample.

    Raises:
        SampleError: It doesn't fit the model.
    """
    if isinstance(model, TensorModel):
        return model.sample(sample).rows
    return make_sample(sample, model=model).rows
