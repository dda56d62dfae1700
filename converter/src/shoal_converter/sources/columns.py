"""Columns of a ColumnTransformer and parts of a FeatureUnion, in the plain form that skl2onnx reads.

Slices, masks, negative places and functions become lists; what is dropped or passed through goes. The model itself is
never changed: what is rewritten is a shallow copy.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any


def plain(model: Any, names: Collection[str]) -> Any:
    """Return the model, or a copy in which columns stand as lists.

    Args:
        model: Fitted estimator or pipeline.
        names: Names of the inputs; columns are named where these are theirs, and counted else.
    """
    if hasattr(model, "best_estimator_"):
        return plain(model.best_estimator_, names)
    if hasattr(model, "steps"):
        working = [(name, step) for name, step in model.steps if not _is_passed(step)]
        return _replaced(model, "steps", [(name, plain(step, names)) for name, step in working or model.steps])
    if hasattr(model, "transformers_") and hasattr(model, "_transformer_to_input_indices"):
        return _replaced(model, "transformers_", _columns(model, names))
    if hasattr(model, "transformer_list"):
        kept = [(name, plain(step, names)) for name, step in model.transformer_list if not _is_drop(step)]
        return _replaced(model, "transformer_list", kept)
    return model


def _columns(model: Any, names: Collection[str]) -> list[tuple[str, Any, list[Any]]]:
    known = [str(name) for name in getattr(model, "feature_names_in_", ())]
    parts = []
    for name, step, _ in model.transformers_:
        places = [int(at) for at in model._transformer_to_input_indices.get(name, ())]  # noqa: SLF001 - the only form that is the same for all
        if _is_drop(step) or not places:
            continue
        named = bool(known) and all(known[at] in names for at in places)
        parts.append((name, plain(step, names), [known[at] for at in places] if named else places))
    return parts


def _is_passed(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def _is_drop(step: Any) -> bool:
    return isinstance(step, str) and step == "drop"


def _replaced(model: Any, attribute: str, value: Any) -> Any:
    changed = copy.copy(model)
    setattr(changed, attribute, value)
    return changed
