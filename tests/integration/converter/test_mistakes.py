"""The likeliest mistakes of a pipeline's author: each names the thing, what came, and what to do.

One table: what is given to `pack`, the error, its exit code, and words of its message and of its cure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from shoal_converter import Bundle, ConverterError, pack
from shoal_converter.cli import exit_code_of
from shoal_converter.sources.sample_file import read_table
from shoal_protocol.errors import CallerError, ShoalError

ROWS, SPECIES = load_iris(return_X_y=True)
FRAME = pd.DataFrame(ROWS, columns=["sl", "sw", "pl", "pw"])
NAMES = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
TEXTS = ["the red fox", "a blue dog", "red red dog", "blue fox runs"] * 30


class Doubling(TransformerMixin, BaseEstimator):
    """A transformer of the author's own."""

    def fit(self, rows: Any, _y: Any = None) -> Doubling:
        self.fitted_ = len(rows)
        return self

    def transform(self, rows: Any) -> Any:
        return np.asarray(rows) * 2


def behind(step: Any, rows: Any = ROWS, target: Any = SPECIES) -> Any:
    return make_pipeline(step, LogisticRegression(max_iter=2000)).fit(rows, target)


OF_ARRAYS = behind(StandardScaler())
OF_COLUMNS = behind(StandardScaler(), FRAME)
OF_NAMES = behind(StandardScaler(), FRAME, NAMES)
OF_TEXTS = behind(TfidfVectorizer(), TEXTS, [0, 1, 0, 1] * 30)


def changed(change: Callable[[pd.DataFrame], Any]) -> pd.DataFrame:
    frame = FRAME.copy()
    found = change(frame)
    return frame if found is None else found


def put(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame if isinstance(value, str) else frame.astype({column: float})

    return change


def dated() -> tuple[Any, pd.DataFrame]:
    frame = FRAME.assign(when=pd.date_range("2024-01-01", periods=len(FRAME)))
    columns = make_column_transformer((StandardScaler(), ["sl"]), (OneHotEncoder(handle_unknown="ignore"), ["when"]))
    return behind(columns, frame), frame


@dataclass(frozen=True)
class Mistake:
    """What is given, and what must be said."""

    what: str
    model: Any
    code: int
    says: str
    cure: str
    sample: Any = None
    y: Any = None
    tag: str = "iris:1.0.0"


MISTAKES = (
    Mistake("not fitted", make_pipeline(StandardScaler(), LogisticRegression()), 2, "not fitted", ".fit(X, y)", ROWS),
    Mistake("a class", LogisticRegression, 2, "is a class, expected a fitted model", ".fit(X, y)", ROWS),
    Mistake("a dictionary", {"clf": OF_ARRAYS}, 2, "dict is no scikit-learn estimator", "found['clf']", ROWS),
    Mistake("predictions", OF_ARRAYS.predict(ROWS), 2, "ndarray is no", "the fitted estimator itself", ROWS),
    Mistake("no sample", OF_ARRAYS, 2, "a sample is required", "--sample FILE"),
    Mistake("a renamed column", OF_COLUMNS, 2, "missing: sl; not known to the model: Sepal", "sl, sw, pl, pw",
            changed(lambda f: f.rename(columns={"sl": "Sepal"}))),
    Mistake("a missing column", OF_COLUMNS, 2, "missing: pl", "sl, sw, pl, pw", FRAME.drop(columns="pl")),
    Mistake("the target among the columns", OF_COLUMNS, 2, "not known to the model: y", "--target y",
            FRAME.assign(y=SPECIES)),
    Mistake("the target in an array", OF_ARRAYS, 2, "fitted on 4 features, the sample has 5", "--target",
            np.c_[ROWS, SPECIES]),
    Mistake("labels in other words", OF_ARRAYS, 2, "none of the labels in y ('setosa', 'versicolor', 'virginica')",
            "LabelEncoder", ROWS, NAMES),
    Mistake("labels as numbers", OF_NAMES, 2, "is a class of the model ('setosa'", "LabelEncoder", FRAME, SPECIES),
    Mistake("too few labels", OF_NAMES, 2, "y has 9 rows, the sample has 150", "exactly these rows", FRAME, NAMES[:9]),
    Mistake("labels of two columns", OF_ARRAYS, 2, "y has 2 columns, the model gives 1 label a row", "fitted on", ROWS,
            np.c_[SPECIES, SPECIES]),
    Mistake("a gap where there was none", OF_COLUMNS, 2, "missing values in 'sw' (1 of 150 rows, first: row 3)",
            "SimpleImputer", changed(put(3, "sw", np.nan))),
    Mistake("infinity", OF_COLUMNS, 2, "infinite values in 'pl' (1 of 150 rows, first: row 7)", "clip",
            changed(put(7, "pl", np.inf))),
    Mistake("a column of mixed types", OF_COLUMNS, 2, "149 of type float and 1 of type str (row 5 has 'n/a')",
            "pd.to_numeric", changed(put(5, "sw", "n/a"))),
    Mistake("a column of dates", dated()[0], 2, "'when' holds datetime64", ".dt.hour", dated()[1]),
    Mistake("no rows", OF_COLUMNS, 2, "the sample has no rows", "filter", FRAME[:0]),
    Mistake("one row without its axis", OF_ARRAYS, 2, "has shape (4,)", "reshape(1, -1)", ROWS[0]),
    Mistake("a sparse matrix", OF_ARRAYS, 2, "is a sparse matrix", ".toarray()", sparse.csr_matrix(ROWS)),
    Mistake("dictionaries", OF_COLUMNS, 2, "rows are dictionaries", "pd.DataFrame", FRAME.to_dict("records")),
    Mistake("texts in two columns", OF_TEXTS, 2, "takes one column of texts; the sample has 2", "ColumnTransformer",
            pd.DataFrame({"text": TEXTS, "size": 1})),
    Mistake("a lambda", behind(FunctionTransformer(lambda rows: rows * 2)), 4, "<lambda> is a program", "np.log1p",
            ROWS),
    Mistake("a transformer of one's own", behind(Doubling()), 4, "step doubling: Doubling is a class of neither",
            "compute it before the model", ROWS),
    Mistake("a v before the version", OF_ARRAYS, 2, "'v1.4' is not a version", "-t iris:1.4", ROWS, tag="iris:v1.4"),
    Mistake("a version of a build", OF_ARRAYS, 2, "'1.0+cpu' is not a version", "-t iris:1.0-cpu", ROWS,
            tag="iris:1.0+cpu"),
    Mistake("a name with blanks", OF_ARRAYS, 2, "'My Iris' is not a model name", "-t my-iris:1", ROWS, tag="My Iris:1"),
    Mistake("a path as a name", OF_ARRAYS, 2, "'../iris' is not a model name", "-t iris:1", ROWS, tag="../iris:1"),
    Mistake("no version", OF_ARRAYS, 2, "names no version", "-t iris:1.0.0", ROWS, tag="iris"),
)  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what.replace(" ", "-"))
def test_a_likely_mistake_is_told_with_its_cure(mistake: Mistake) -> None:
    with pytest.raises((ConverterError, CallerError)) as caught:
        pack(mistake.model, sample=mistake.sample, y=mistake.y, tag=mistake.tag)
    error = caught.value
    assert isinstance(error, ShoalError)
    assert exit_code_of(error) == mistake.code
    assert mistake.says in error.message
    assert mistake.cure in error.hint


@pytest.mark.parametrize(
    ("name", "text", "says", "cure"),
    [
        ("semicolons", FRAME.to_csv(sep=";", index=False), "separated by ';', expected ','", "sep=';'"),
        ("index", FRAME.to_csv(), "the first column has no name", "index=False"),
        ("empty", "", "has nothing in it", "a line of column names"),
        ("header", "sl,sw,pl,pw,y\n", "a header and no rows", "a line for each row"),
        ("target", FRAME.assign(Y=SPECIES).to_csv(index=False), "has no column 'y'", "is --target Y meant?"),
        ("gap", FRAME.assign(y=SPECIES).to_csv(index=False).replace("5.1,", "five,", 1), "texts in 'sl'", "to_numeric"),
    ],
)
def test_a_sample_written_otherwise_is_told_with_its_cure(
    tmp_path: Path, name: str, text: str, says: str, cure: str
) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text(text)

    def packed() -> Bundle:
        table = read_table(path, target="y")
        return pack(OF_COLUMNS, sample=table.rows_for(OF_COLUMNS), y=table.target, tag="iris:1.0.0")

    with pytest.raises(ConverterError) as caught:
        packed()
    assert exit_code_of(caught.value) == 2
    assert says in caught.value.message
    assert cure in caught.value.hint


def test_what_looks_like_a_mistake_and_is_none(tmp_path: Path) -> None:
    """Other order of columns, arrays for frames and frames for arrays, texts in a table of one column, one row."""
    told: list[str] = []
    fine = (
        (OF_COLUMNS, FRAME[["pw", "sl", "pl", "sw"]], None),
        (OF_TEXTS, pd.DataFrame({"text": TEXTS}), None),
        (OF_ARRAYS, ROWS[:1], [str(SPECIES[0])]),
        (behind(StandardScaler(), ROWS, SPECIES > 0), FRAME, SPECIES > 0),
        (OF_COLUMNS, FRAME.round().astype(int), None),
    )
    bundles = [pack(m, sample=rows, y=y, tag="iris:1.0.0", progress=told.append) for m, rows, y in fine]
    assert [field.name for field in bundles[0].schema.inputs] == ["sl", "sw", "pl", "pw"]
    assert [tensor.dtype for tensor in bundles[1].schema.tensors] == ["string"]
    assert any("1 rows prove little" in line for line in told)
    assert any("devices will send whole numbers as sl, sw, pl, pw" in line for line in told)
    path = bundles[1].write(tmp_path / "texts.tar")
    assert Bundle.open(path).digest == bundles[1].digest
