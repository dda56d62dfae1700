"""From what a caller has to what the graph takes: columns, rows or tensors, checked against the bundle's schema.

Owns every check of an input and its wording. An input that already is exact (right tensors, dtypes and shapes) is never
looked at here: onnxruntime validates it as it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.contract_rules import rule_faults
from shoal_agent.runtime.conversion import Array, converted, dtype_name, floats, numpy_dtype, shown, truths_as_numbers
from shoal_agent.runtime.errors import Fault, InputError
from shoal_agent.runtime.nan_screen import holds_nan
from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, TensorSpec
from shoal_protocol.profile.grid import category_text

_NUMBERS = frozenset({float, int, type(None)})


class InputPlan:
    """How inputs become feeds.

    Args:
        schema: The bundle's.
    """

    def __init__(self, schema: ModelSchema) -> None:
        self._tensors = {tensor.name: tensor for tensor in schema.tensors}
        self._fields = {field.name: field for field in schema.inputs}
        self._truths = {f.tensor for f in schema.inputs if f.dtype == "bool" != self._tensors[f.tensor].dtype}
        self._no_missing = _no_missing(schema)
        self._closed = [field for field in schema.inputs if field.categories is not None]
        self._matrices = float_tables(schema)
        self._refusing = [
            (rule, self._fields[rule.field])
            for rule in schema.contract
            if rule.action == "refuse" and rule.field in self._fields
        ]
        self.has_rules = bool(self._no_missing or self._closed or self._refusing)
        """Whether values must be looked at, beyond dtype and shape."""
        self.looks_at_values = bool(self._closed or self._refusing)
        """Whether a feature must be one of a list, or a rule of the contract refuses values."""
        self.no_nan = frozenset(self._no_missing)
        """Names of the tensors in which a NaN must be looked at."""

    def feeds(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Make the graph's feeds.

        Args:
            inputs: Either every input tensor by name, or every feature (column) by name; anything numpy can make an
                array of, rows first. Numbers are converted where nothing but precision can be lost.

        Raises:
            InputError: Something is missing, unknown, or of a wrong type, shape or category; it names all of it.
        """
        is_tensors = inputs.keys() == self._tensors.keys()
        feeds = self._from_tensors(inputs) if is_tensors else self._from_columns(inputs)
        self.check_rules(feeds)
        return feeds

    def row_feeds(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
        """Make the graph's feeds of rows of plain values; whether values may be missing is left to the prediction.

        Raises:
            InputError: As `feeds`, and where a row lacks a feature or has one that the bundle doesn't know.
        """
        feeds: dict[str, Array] = {}
        for name, names, dtype in self._matrices or ():
            try:
                values = [row[feature] for row in rows for feature in names]
            except KeyError:
                break
            if not set(map(type, values)) <= _NUMBERS:
                break
            try:
                feeds[name] = floats(values, dtype).reshape(len(rows), len(names))
            except OverflowError:  # a whole number beyond any float; the columns' way names it
                break
        if len(feeds) < len(self._tensors) or any(len(row) != len(self._fields) for row in rows):
            return self.feeds(self._columns(rows))
        return feeds

    def _columns(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        faults: list[Fault] = []
        for at, row in enumerate(rows):
            if row.keys() != self._fields.keys():
                faults.extend(self._name_faults(row.keys(), at))
        if faults:
            raise InputError(faults, hint=self._names_hint())
        return {name: [row[name] for row in rows] for name in self._fields}

    def explain(self, inputs: Mapping[str, Array]) -> None:
        """Say in the schema's words what onnxruntime refused.

        Raises:
            InputError: The inputs do not fit; if they do, nothing happens.
        """
        faults = [
            Fault(name, _wanted(self._tensors[name]), f"{dtype_name(array)}{list(array.shape)}")
            for name, array in inputs.items()
            if name in self._tensors and not _fits(array, self._tensors[name])
        ]
        faults.extend(self._row_count_faults(inputs))
        if faults:
            raise InputError(faults)

    def check_rules(self, feeds: Mapping[str, Array]) -> None:
        """Look for missing values and categories where the bundle refuses them.

        Raises:
            InputError: There is one; it names feature and row.
        """
        faults: list[Fault] = []
        for tensor, fields in self._no_missing.items():
            if holds_nan(feeds[tensor]):
                faults.extend(_missing_faults(fields, np.isnan(feeds[tensor])))
        for field in self._closed:
            faults.extend(_category_faults(field, _field_values(field, feeds)))
        for rule, field in self._refusing:
            faults.extend(rule_faults(rule, field, _field_values(field, feeds)))
        if faults:
            raise InputError(faults)

    def _from_tensors(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        faults: list[Fault] = []
        feeds: dict[str, Array] = {}
        for name, tensor in self._tensors.items():
            sentinel = next((f.missing_sentinel for f in self._fields.values() if f.tensor == name), None)
            values = truths_as_numbers(inputs[name]) if name in self._truths else inputs[name]
            array = converted(name, values, tensor.dtype, sentinel, faults)
            if array is not None:
                feeds[name] = _shaped(array, tensor)
        self._finish(feeds, faults)
        return feeds

    def _from_columns(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        faults = self._name_faults(inputs.keys(), None)
        if faults:
            raise InputError(faults, hint=self._names_hint())
        arrays: dict[str, Array] = {}
        for name, field in self._fields.items():
            values = truths_as_numbers(inputs[name]) if field.tensor in self._truths else inputs[name]
            array = converted(name, values, self._tensors[field.tensor].dtype, field.missing_sentinel, faults)
            if array is not None:
                arrays[name] = array
        counts = {len(array) if array.ndim else 0 for array in arrays.values()}
        if len(counts) > 1:
            faults.extend(self._row_count_faults(arrays))
        faults.extend(
            Fault(name, "one value a row", f"{dtype_name(array)}{list(array.shape)}")
            for name, array in arrays.items()
            if self._fields[name].column is not None and (array.ndim == 0 or array.size != len(array))
        )
        if faults:
            raise InputError(faults)
        feeds = {name: self._assembled(tensor, arrays) for name, tensor in self._tensors.items()}
        self._finish(feeds, faults)
        return feeds

    def _assembled(self, tensor: TensorSpec, arrays: Mapping[str, Array]) -> Array:
        parts = [field for field in self._fields.values() if field.tensor == tensor.name]
        if len(parts) == 1 and parts[0].column is None:
            return _shaped(arrays[parts[0].name], tensor)
        rows = len(arrays[parts[0].name]) if parts else 1
        width = 1 + max((field.column or 0 for field in parts), default=0)
        whole = np.zeros((rows, width), dtype=numpy_dtype(tensor.dtype))
        for field in parts:
            whole[:, field.column or 0] = arrays[field.name].reshape(rows)
        return whole

    def _finish(self, feeds: Mapping[str, Array], faults: list[Fault]) -> None:
        if faults:
            raise InputError(faults)
        self.explain(feeds)

    def _row_count_faults(self, arrays: Mapping[str, Array]) -> list[Fault]:
        counts = {name: len(array) for name, array in arrays.items() if array.ndim}
        most = max(counts.values(), key=list(counts.values()).count, default=0)
        return [Fault(name, f"{most} rows as the others", f"{n} rows") for name, n in counts.items() if n != most]

    def _name_faults(self, names: Iterable[str], row: int | None) -> list[Fault]:
        given = set(names)
        faults = [Fault(n, f"a value of {f.dtype}", "none", row) for n, f in self._fields.items() if n not in given]
        unknown = sorted(given - set(self._fields))
        return faults + [Fault(name, "a feature of this bundle", "an unknown name", row) for name in unknown]

    def _names_hint(self) -> str:
        names = list(self._fields)
        some = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return f"the features are: {some}; the tensors: {', '.join(self._tensors)}"


def check_rows(rows: Any) -> None:
    """Check that rows are what `InputPlan.row_feeds` takes at all.

    Raises:
        InputError: They are no list, or one of them is no mapping from features to values.
    """
    if not isinstance(rows, list | tuple):
        raise InputError([Fault("rows", 'a list of rows such as [{"age": 34}]', shown(rows))])
    wrong = next(((at, row) for at, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise InputError([Fault("rows", 'a row such as {"age": 34}', shown(wrong[1]), wrong[0])])


def float_tables(schema: ModelSchema) -> list[tuple[str, list[str], np.dtype[Any]]] | None:
    """Return (tensor, features in the order of its columns, dtype), if all tensors are plain tables of floats."""
    found = []
    for tensor in schema.tensors:
        parts = {field.column: field.name for field in schema.inputs if field.tensor == tensor.name}
        order = list(range(len(parts)))
        is_table = len(tensor.shape) == 2 and tensor.shape[1] == len(parts) and set(parts) == set(order)
        if not is_table or numpy_dtype(tensor.dtype).kind != "f":
            return None
        found.append((tensor.name, [parts[at] for at in order], numpy_dtype(tensor.dtype)))
    return found


def _category_faults(field: FieldSpec, values: Array) -> list[Fault]:
    known = set(field.categories or ())
    flat = values.reshape(-1)
    for at, value in enumerate(flat.tolist()):
        text = category_text(value)
        if text not in known and text != field.missing_sentinel:
            some = ", ".join(repr(c) for c in sorted(known)[:8]) + (", …" if len(known) > 8 else "")
            return [Fault(field.name, f"one of {some}", shown(value), at // max(1, values[:1].size))]
    return []


def _field_values(field: FieldSpec, feeds: Mapping[str, Array]) -> Array:
    array = feeds[field.tensor]
    return array if field.column is None else array.reshape(len(array), -1)[:, field.column]


def _no_missing(schema: ModelSchema) -> dict[str, list[FieldSpec]]:
    """Return the features that refuse missing values, by tensor; in a tensor only floats can be missing."""
    floats = {tensor.name for tensor in schema.tensors if tensor.dtype.startswith("float")}
    refusing = [field for field in schema.inputs if field.missing == "refused" and field.tensor in floats]
    return {name: [f for f in refusing if f.tensor == name] for name in dict.fromkeys(f.tensor for f in refusing)}


def _missing_faults(fields: Sequence[FieldSpec], missing: npt.NDArray[np.bool_]) -> list[Fault]:
    rows = missing.reshape(len(missing), -1)
    wanted = "a value (this bundle refuses missing ones)"
    absent = [(field, rows if field.column is None else rows[:, field.column : field.column + 1]) for field in fields]
    return [Fault(f.name, wanted, "a missing one", int(at.any(axis=1).argmax())) for f, at in absent if at.any()]


def _shaped(array: Array, tensor: TensorSpec) -> Array:
    """Give a plain column the second dimension that the graph wants; leave all else to the check."""
    if array.ndim == 1 and len(tensor.shape) == 2 and tensor.shape[1] in {1, None}:
        return array.reshape(-1, 1)
    return array


def _fits(array: Array, tensor: TensorSpec) -> bool:
    if numpy_dtype(tensor.dtype).kind != ("O" if array.dtype.kind in "OUS" else array.dtype.kind):
        return False
    if tensor.dtype != "string" and array.dtype != numpy_dtype(tensor.dtype):
        return False
    if array.ndim != len(tensor.shape):
        return False
    return all(want in {None, got} for want, got in zip(tensor.shape, array.shape, strict=True))


def _wanted(tensor: TensorSpec) -> str:
    sizes = ", ".join("N" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.dtype}[{sizes}]"
