"""Samples from files, and what is said about those that can't be used."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from shoal_converter.errors import LibraryMissingError, SampleError
from shoal_converter.sources.sample_file import read_table

FITTED_ON_ARRAYS = SimpleNamespace()


def written(folder: Path, text: str, name: str = "rows.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_csv_gives_each_column_its_type(tmp_path: Path) -> None:
    path = written(tmp_path, "age,height,city,member,y\n30,1.5,bern,true,a\n40,,zug,False,b\n")
    table = read_table(path, target="y")
    assert table.columns is not None
    assert {name: values.dtype.kind for name, values in table.columns.items()} == {
        "age": "i",
        "height": "f",
        "city": "O",
        "member": "b",
    }
    assert np.isnan(table.columns["height"][1])
    assert table.target is not None
    assert table.target.tolist() == ["a", "b"]


def test_integers_that_do_not_fit_stay_numbers(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "n\n99999999999999999999\n1\n"))
    assert table.columns is not None
    assert table.columns["n"].dtype == np.float64


def test_a_model_fitted_on_arrays_gets_an_array_and_one_fitted_on_a_frame_a_frame(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b\n1,2\n3,4\n"))
    assert table.rows_for(FITTED_ON_ARRAYS).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert list(table.rows_for(SimpleNamespace(feature_names_in_=np.array(["a", "b"]))).columns) == ["a", "b"]


def test_an_npz_names_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(2), y=np.array([0, 1]))
    table = read_table(tmp_path / "a.npz")
    assert table.matrix is not None
    assert table.matrix.shape == (2, 2)
    assert table.target is not None
    np.savez(tmp_path / "b.npz", age=np.array([1, 2]), city=np.array(["x", "y"]), sold=np.array([0, 1]))
    columns = read_table(tmp_path / "b.npz", target="sold")
    assert list(columns.columns or {}) == ["age", "city"]


def test_an_npy_is_a_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    table = read_table(tmp_path / "a.npy")
    assert table.matrix is not None
    assert table.matrix.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("a,b\n", None, "a header and no rows"),
        ("", None, "nothing in it"),
        ("1,2\n3,4\n", None, "has no header"),
        ("a,b\n1\n", None, "line 2 has 1 fields, the header 2"),
        ("a,a\n1,2\n", None, "must name every column once"),
        ("a,b\n1,2\n", "c", "has no column 'c'; it has a, b"),
        ("a\n1\n", "a", "no column besides the target"),
    ],
)
def test_a_csv_that_can_not_be_used(tmp_path: Path, text: str, target: str | None, says: str) -> None:
    with pytest.raises(SampleError) as caught:
        read_table(written(tmp_path, text), target=target)
    assert says in caught.value.message


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(SampleError) as caught:
        read_table(tmp_path / "a.csv")
    assert "UTF-8" in caught.value.message


@pytest.mark.parametrize("name", ["objects.npz", "objects.npy"])
def test_objects_are_never_unpickled(tmp_path: Path, name: str) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    if name.endswith("npz"):
        np.savez(tmp_path / name, X=objects)
    else:
        np.save(tmp_path / name, objects, allow_pickle=True)
    with pytest.raises(SampleError) as caught:
        read_table(tmp_path / name)
    assert "never loaded from a sample" in caught.value.message


def test_a_damaged_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(30))
    raw = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(SampleError) as caught:
        read_table(tmp_path / "a.npz")
    assert "written completely" in caught.value.hint


def test_arrays_of_which_none_is_the_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", p=np.eye(2), q=np.eye(3))
    with pytest.raises(SampleError) as caught:
        read_table(tmp_path / "a.npz")
    assert "which is the sample?" in caught.value.message


def test_a_parquet_file_without_pyarrow_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(LibraryMissingError) as caught:
        read_table(tmp_path / "a.parquet")
    assert "shoal-converter[parquet]" in caught.value.hint
