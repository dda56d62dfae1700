"""The sample: rows as the source model takes them and as the ONNX model will be fed with them.

Owns the rule that maps a user's columns to tensors. A 2-D array becomes one tensor ``x`` of [N, F]; a list of texts one
of [N, 1]; a data frame one [N, 1] tensor a column (float32, int64 or string; a missing text is `MISSING_TEXT`). Names
of columns are kept in the schema, and for tensors too, unless an output has that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import LibraryMissingError, SampleError
from shoal_converter.frame_columns import MISSING_TEXT, fed_column, is_boolean, refuse_missing_texts
from shoal_protocol.bundle.schema import DType, FieldSpec, TensorSpec

Array = npt.NDArray[Any]

OUTPUT_NAMES = frozenset({"label", "probabilities", "scores", "value", "transformed"})
MATRIX_TENSOR = "x"

_MAX_CATEGORIES = 64


@dataclass(frozen=True)
class Column:
    """One feature.

    Attributes:
        name: As the user knows it.
        dtype: As devices feed it: ``float32``, ``float64``, ``int64`` or ``string``.
        tensor: The model's input that holds it.
        column: Its place in a 2-D tensor; none: the tensor is this column alone.
        is_boolean: Whether its values are true and false, which the model sees as 1 and 0.
    """

    name: str
    dtype: DType
    tensor: str
    column: int | None = None
    is_boolean: bool = False


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows in both forms.

    Attributes:
        form: ``matrix``, ``frame`` or ``text``; ``tensors`` for a model whose inputs are tensors of any rank.
        columns: The features in order.
        source: What the source model's methods take.
        tensors: What the ONNX model takes, by tensor name, each [N, width] (of ``tensors`` any shape with rows first).
        shapes: As the model states them, where its axes need not have the sample's sizes.
        unused: Features that devices feed although the model drops them.
    """

    form: Literal["matrix", "frame", "text", "tensors"]
    columns: tuple[Column, ...]
    source: Any
    tensors: Mapping[str, Array]
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.tensors.values())))

    def values(self, column: Column) -> Array:
        """Return one feature's values as fed, shape (N,); of a feature that is a whole tensor its shape."""
        tensor = self.tensors[column.tensor]
        if self.form == "tensors" and column.column is None:
            return np.asarray(tensor)
        return np.asarray(tensor[:, column.column or 0])

    def place(self, at: int) -> int:
        """Return where the source holds a feature: a data frame may have columns that the model drops."""
        if self.form != "frame":
            return at
        return [str(label) for label in self.source.columns].index(self.columns[at].name)

    def take(self, rows: npt.NDArray[np.int64]) -> dict[str, Array]:
        """Return the tensors of some rows."""
        return {name: values[rows] for name, values in self.tensors.items()}

    def tensor_specs(self) -> tuple[TensorSpec, ...]:
        """Describe the tensors for the schema."""
        dtypes = {column.tensor: column.dtype for column in self.columns}
        return tuple(
            TensorSpec(name=name, dtype=dtypes[name], shape=self.shapes.get(name, (None, *values.shape[1:])))
            for name, values in self.tensors.items()
        )

    def field_specs(self, *, missing_allowed: bool, unknown_allowed: bool) -> tuple[FieldSpec, ...]:
        """Describe the features for the schema.

        Args:
            missing_allowed: Whether the model takes NaN; a feature with a NaN in the sample says so by itself.
            unknown_allowed: Whether the model takes categories that training never saw; else devices refuse them.
        """
        return tuple(
            self._field(column, missing_allowed=missing_allowed, unknown_allowed=unknown_allowed)
            for column in self.columns
        )

    def _field(self, column: Column, *, missing_allowed: bool, unknown_allowed: bool) -> FieldSpec:
        values = self.values(column)
        if column.dtype == "string":
            texts = sorted(set(values.ravel().tolist()) - {MISSING_TEXT})
            seen_missing = self.form == "frame" and MISSING_TEXT in values.tolist()
            is_open = unknown_allowed or self.form in {"text", "tensors"} or len(texts) > _MAX_CATEGORIES
            return FieldSpec(
                name=column.name,
                dtype=column.dtype,
                tensor=column.tensor,
                column=column.column,
                missing="allowed" if seen_missing else "refused",
                missing_sentinel=MISSING_TEXT if seen_missing else None,
                categories=None if is_open else tuple(texts),
            )
        is_float = values.dtype.kind == "f"
        finite = values[np.isfinite(values)] if is_float else values
        seen_missing = is_float and bool(np.isnan(values).any())
        return FieldSpec(
            name=column.name,
            dtype="bool" if column.is_boolean else column.dtype,
            tensor=column.tensor,
            column=column.column,
            missing="allowed" if seen_missing or (missing_allowed and is_float) else "refused",
            low=float(finite.min()) if finite.size else None,
            high=float(finite.max()) if finite.size else None,
        )


def make_sample(data: Any, *, model: Any = None, float_dtype: Literal["float32", "float64"] = "float32") -> Sample:
    """Read rows that a caller gave.

    Args:
        data: A 2-D array, a list of rows or of texts, or a pandas DataFrame.
        model: The fitted model, whose feature names and number of features the sample must fit.
        float_dtype: Element type of float inputs on the device.

    Raises:
        SampleError: It is missing or empty, has the wrong columns, or a column's type or missing text can't be fed.
    """
    if data is None:
        raise SampleError(
            "a sample is required: rows like those that the model was trained on",
            hint="give sample=X (Python) or --sample FILE (.npz, .npy, .csv, .parquet); 1,000 typical rows are plenty",
        )
    if _takes_texts(model):
        data = _texts_alone(data)
    if _is_frame(data):
        return _from_frame(data, model, float_dtype)
    if _is_series(data):
        data = data.to_numpy()
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], Mapping):
        raise SampleError("the sample's rows are dictionaries", hint="give a table of them: pd.DataFrame(sample)")
    if hasattr(data, "toarray"):
        raise SampleError("the sample is a sparse matrix", hint="give rows as a dense array: sample.toarray()")
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise SampleError(f"the sample's rows have different lengths: {error}", hint="give a 2-D array") from error
    return _from_array(array, model, float_dtype)


def _takes_texts(model: Any) -> bool:
    """Tell whether a model begins with a vectoriser, which takes a list of texts and no table."""
    step = getattr(model, "best_estimator_", model)
    while getattr(step, "steps", None) or getattr(step, "transformer_list", None):
        step = (getattr(step, "steps", None) or step.transformer_list)[0][1]
    return hasattr(step, "build_analyzer")


def _texts_alone(data: Any) -> Any:
    """Return the one column of a table as the list of texts that a vectoriser takes; anything else as it is.

    Raises:
        SampleError: There are several columns.
    """
    if not _is_frame(data) and not (isinstance(data, np.ndarray) and data.ndim == 2):
        return data
    if data.shape[1] == 1:
        return data.iloc[:, 0] if _is_frame(data) else data[:, 0]
    names = (
        [repr(str(label)) for label in data.columns] if _is_frame(data) else [f"x{at}" for at in range(data.shape[1])]
    )
    raise SampleError(
        f"the model begins with a vectoriser, which takes one column of texts; the sample has {len(names)}: "
        f"{', '.join(names[:10])}",
        hint="leave the others out, or train with ColumnTransformer([('text', TfidfVectorizer(), 'text'), …])",
    )


def _is_frame(data: Any) -> bool:
    return type(data).__module__.split(".")[0] == "pandas" and hasattr(data, "columns")


def _is_series(data: Any) -> bool:
    return type(data).__module__.split(".")[0] == "pandas" and not hasattr(data, "columns")


def fitted_names(model: Any) -> list[str] | None:
    """Return the feature names that a fitted model remembers, or none when it was fitted on arrays."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return None
    texts = [str(name) for name in names]
    # LightGBM numbers the columns of an array itself; those names are nobody's.
    return None if texts == [f"Column_{at}" for at in range(len(texts))] else texts


def frame(columns: Mapping[str, Array]) -> Any:
    """Return a pandas DataFrame.

    Raises:
        LibraryMissingError: pandas is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415 - optional
    except ImportError as error:
        raise LibraryMissingError(
            "the model was fitted on a pandas DataFrame, and pandas is not installed here", hint="pip install pandas"
        ) from error
    return pd.DataFrame(dict(columns))


def _from_array(array: Array, model: Any, float_dtype: DType) -> Sample:
    if array.ndim == 1 and array.dtype.kind in "OUS" and array.size:
        return _from_texts(array)
    if array.ndim == 2 and array.shape[0] == 0:
        raise _no_rows(array.shape)
    if array.ndim != 2 or array.shape[1] == 0:
        raise SampleError(
            f"the sample has shape {array.shape}, expected (rows, features) with at least one of each",
            hint="reshape one row by sample.reshape(1, -1), one feature by sample.reshape(-1, 1)",
        )
    names = fitted_names(model)
    expected = len(names) if names else getattr(model, "n_features_in_", None)
    if isinstance(expected, int) and expected != array.shape[1]:
        raise SampleError(
            f"the model was fitted on {expected} features, the sample has {array.shape[1]}",
            hint="does the sample still hold the target? Leave it out of X, or name it by --target",
        )
    dtype, fed = _fed_array(array, float_dtype)
    source: Any = array
    if names is not None:
        source = frame({name: array[:, at] for at, name in enumerate(names)})
    labels = names or [f"x{at}" for at in range(array.shape[1])]
    columns = tuple(Column(name, dtype, MATRIX_TENSOR, at) for at, name in enumerate(labels))
    return Sample("matrix", columns, source, {MATRIX_TENSOR: fed})


def _no_rows(shape: tuple[int, ...]) -> SampleError:
    return SampleError(
        f"the sample has no rows: its shape is {shape}",
        hint="did a filter leave none? 1,000 typical rows are plenty, and 100 the least that prove much",
    )


def _fed_array(array: Array, float_dtype: DType) -> tuple[DType, Array]:
    if array.dtype.kind in "biuf":
        return float_dtype, np.ascontiguousarray(array, dtype=float_dtype)
    if array.dtype.kind == "O":
        try:
            return float_dtype, array.astype(float_dtype)
        except (TypeError, ValueError):
            pass
    if array.dtype.kind in "OUS":
        texts = array.astype(object)
        refuse_missing_texts("x", texts.ravel())
        return "string", np.vectorize(str, otypes=[object])(texts)
    raise SampleError(f"the sample has dtype {array.dtype}, expected numbers or texts")


def _from_texts(array: Array) -> Sample:
    refuse_missing_texts("text", array)
    texts = np.array([[str(text)] for text in array], dtype=object)
    return Sample("text", (Column("text", "string", MATRIX_TENSOR, 0),), array, {MATRIX_TENSOR: texts})


def _from_frame(data: Any, model: Any, float_dtype: DType) -> Sample:
    if len(data) == 0:
        raise _no_rows(data.shape)
    if len(data.columns) == 0:
        raise SampleError(
            f"the sample has shape {data.shape}, expected at least one column", hint="give the model's features"
        )
    data = _fit_columns(data, fitted_names(model), model)
    columns: list[Column] = []
    tensors: dict[str, Array] = {}
    dropped = _dropped(model)
    for at, label in enumerate(data.columns):
        name = str(label)
        if at in dropped and data[label].dtype.kind in "mM":
            continue  # the source wants to see the column, and nothing asks what is in it
        dtype, values = fed_column(name, data[label], float_dtype)
        tensor = name
        while tensor in OUTPUT_NAMES or tensor in tensors or not tensor:
            tensor += "_in"
        columns.append(Column(name, dtype, tensor, is_boolean=is_boolean(data[label])))
        tensors[tensor] = values.reshape(-1, 1)
    fed = {column.name for column in columns}
    unused = tuple(str(label) for at, label in enumerate(data.columns) if at in dropped and str(label) in fed)
    return Sample("frame", tuple(columns), data, tensors, unused=unused)


def _dropped(model: Any) -> frozenset[int]:
    """Return the places of columns that a fitted ColumnTransformer at the model's beginning does not look at."""
    step = getattr(model, "best_estimator_", model)
    while getattr(step, "steps", None):
        step = step.steps[0][1]
    places = getattr(step, "_transformer_to_input_indices", None)
    if places is None:
        return frozenset()
    used = [places.get(name, ()) for name, inner, _ in step.transformers_ if not _is_drop(inner)]
    return frozenset(range(int(step.n_features_in_))) - {int(at) for each in used for at in each}


def _is_drop(step: Any) -> bool:
    return isinstance(step, str) and step == "drop"


def _fit_columns(data: Any, names: Sequence[str] | None, model: Any) -> Any:
    given = [str(label) for label in data.columns]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise SampleError(f"the sample has columns of the same name: {', '.join(twice[:5])}")
    if names is None:
        return data
    if type(getattr(model, "booster", model)).__module__.startswith("lightgbm") and [
        name.replace(" ", "_") for name in given
    ] == list(names):
        return data  # LightGBM writes blanks in its names as underscores
    absent = [name for name in names if name not in given]
    extra = [name for name in given if name not in names]
    if absent or extra:
        faults = ([f"missing: {', '.join(absent[:10])}"] if absent else []) + (
            [f"not known to the model: {', '.join(extra[:10])}"] if extra else []
        )
        hint = "give the columns that the model was fitted on: " + ", ".join(names[:20])
        if len(extra) == 1 and not absent:
            name = extra[0]
            hint = (
                f"if {name!r} is the label: --target {name} (command); else leave it out: df.drop(columns=[{name!r}])"
            )
        raise SampleError(f"the sample's columns don't fit the model; {'; '.join(faults)}", hint=hint)
    return data.set_axis(given, axis=1)[list(names)]
