"""Encoders of categories, as formulas: each category's place is looked up, and then a table of what it becomes.

Owns unseen categories too: an encoder that raises on them becomes a graph that fails on them, by a look-up beyond the
table's end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.formula import Formula

Array = npt.NDArray[Any]


def one_hot_encoder(f: Formula, model: Any) -> tuple[str, ...]:
    """One column a category, less the dropped ones; rare categories share one."""
    tables = []
    for at, categories in enumerate(model.categories_):
        places = _grouped(model, at, len(categories))
        wide = np.eye(int(places.max()) + 1)
        unseen = np.zeros((1, wide.shape[1]))
        if model.handle_unknown in {"infrequent_if_exist", "warn"} and _rare(model, at):
            unseen = wide[-1:]
        table = np.concatenate([wide[places], *([] if model.handle_unknown == "error" else [unseen])])
        dropped = None if model._drop_idx_after_grouping is None else model._drop_idx_after_grouping[at]  # noqa: SLF001 - fitted, no public name
        tables.append(table if dropped is None else np.delete(table, int(dropped), axis=1))
    return (_looked_up(f, model, tables),)


def ordinal_encoder(f: Formula, model: Any) -> tuple[str, ...]:
    """The category's number; rare categories share the last, a missing one has its own."""
    tables = []
    for at, categories in enumerate(model.categories_):
        places = _grouped(model, at, len(categories))
        numbers = places.astype(np.float64)
        missing = getattr(model, "_missing_indices", {}).get(at)
        if missing is not None:
            numbers[places == missing] = model.encoded_missing_value
        unseen = [] if model.handle_unknown == "error" else [[float(model.unknown_value)]]
        tables.append(np.concatenate([numbers[:, np.newaxis], *([np.array(unseen)] if unseen else [])]))
    return (_looked_up(f, model, tables),)


def target_encoder(f: Formula, model: Any) -> tuple[str, ...]:
    """Each category's mean of the target, for several classes of each class; unseen ones get the mean of all."""
    classes = len(model.classes_) if model.target_type_ == "multiclass" else 1
    means = np.asarray(model.target_mean_, dtype=np.float64).reshape(1, -1)
    tables = []
    for at in range(len(model.categories_)):
        known = [np.asarray(model.encodings_[at * classes + each], dtype=np.float64) for each in range(classes)]
        tables.append(np.concatenate([np.stack(known, axis=1), means]))
    return (_looked_up(f, model, tables),)


def _looked_up(f: Formula, model: Any, tables: list[Array]) -> str:
    single = [
        (name, f.whole(given), at, text) for given, (name, width, text) in enumerate(f.widths()) for at in range(width)
    ]
    parts = []
    for (name, whole, at, text), categories, table in zip(single, model.categories_, tables, strict=True):
        column = f.columns(name, [at])
        if whole is not None and np.asarray(categories).dtype.kind in "iu":
            place = f.whole_place(f.columns(whole, [at]), categories)
        else:
            place = f.place(f.numbers(column) if text and not _of_texts(categories) else column, categories)
        parts.append(f.node("Gather", table, f.flat(place), axis=0))
    return f.node("Concat", *parts, axis=1)


def _of_texts(categories: Any) -> bool:
    return any(isinstance(value, str) for value in np.asarray(categories).tolist())


def _grouped(model: Any, at: int, count: int) -> Any:
    """Return each category's number after rare ones have been put together."""
    if not getattr(model, "_infrequent_enabled", False):
        return np.arange(count)
    mapping = model._default_to_infrequent_mappings[at]  # noqa: SLF001 - fitted, without a public name
    return np.arange(count) if mapping is None else np.asarray(mapping)


def _rare(model: Any, at: int) -> bool:
    return bool(getattr(model, "_infrequent_enabled", False)) and model.infrequent_categories_[at] is not None
