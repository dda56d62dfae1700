"""Files as people, spreadsheets and other programs write them: what is read of them, and what is no feature."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shoal_server.ctl.errors import FileError
from shoal_server.ctl.moving_columns import why_left_out
from shoal_server.ctl.sample_files import Pair, read_pair, typed_columns
from shoal_server.ctl.table_files import read_table

N = 400
TEMP = np.random.default_rng(1).normal(21, 2, N).round(2)
AMOUNT = np.random.default_rng(2).lognormal(7, 1, N).round(2)


def grouped(amount: float) -> str:
    return f"{amount:,.2f}"


def german(amount: float) -> str:
    return f"{amount:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")


def swiss(amount: float) -> str:
    return f"{amount:,.2f}".replace(",", "\N{RIGHT SINGLE QUOTATION MARK}")


def table(path: Path, columns: dict[str, list[str]], separator: str = ";", encoding: str = "utf-8") -> Path:
    lines = [separator.join(columns), *map(separator.join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines), encoding=encoding)
    return path


def same(folder: Path, file: Path) -> Pair:
    plain = table(folder / "plain.csv", {"temp": [f"{x}" for x in TEMP], "amount": [f"{x}" for x in AMOUNT]})
    pair = read_pair(plain, file)
    np.testing.assert_allclose(pair.current["temp"], TEMP)
    np.testing.assert_allclose(pair.current["amount"], AMOUNT)
    return pair


@pytest.mark.parametrize("written", [grouped, german, swiss, lambda x: f"$ {x:,.2f}", lambda x: f"{german(x)} €"])
def test_amounts_are_read_as_spreadsheets_write_them(tmp_path: Path, written: Callable[[float], str]) -> None:
    columns = {"temp": [f"{x} °C" for x in TEMP], "amount": [written(x) for x in AMOUNT]}
    assert same(tmp_path, table(tmp_path / "x.csv", columns)).current.keys() == {"temp", "amount"}


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_texts_of_windows_are_read_and_said_to_be(tmp_path: Path, encoding: str) -> None:
    columns = {"temp": [f"{x} °C" for x in TEMP], "amount": [f"{x}" for x in AMOUNT]}
    pair = same(tmp_path, table(tmp_path / "x.csv", columns, encoding=encoding))
    assert any(f"it was read as {encoding}" in note for note in pair.notes)


def test_other_forms_of_the_same_rows_are_read(tmp_path: Path) -> None:
    rows = [{"temp": t, "amount": a} for t, a in zip(TEMP.tolist(), AMOUNT.tolist(), strict=True)]
    lines = "temp,amount\n" + "\n".join(f"{t},{a}" for t, a in zip(TEMP, AMOUNT, strict=True))
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "y.json").write_text(json.dumps({name: [row[name] for row in rows] for name in ("temp", "amount")}))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (tmp_path / "x.txt").write_text(lines.replace(",", "   "))
    for name in ("x.csv.gz", "x.json", "y.json", "x.jsonl.gz", "x.txt"):
        assert same(tmp_path, tmp_path / name).current.keys() == {"temp", "amount"}


def test_units_that_differ_between_the_files_are_said(tmp_path: Path) -> None:
    before = table(tmp_path / "before.csv", {"temp": [f"{x} °C" for x in TEMP]})
    now = table(tmp_path / "now.csv", {"temp": [f"{x * 1.8 + 32:.2f} °F" for x in TEMP]})
    assert "temp is written in °C in before.csv, in °F in now.csv." in read_pair(before, now).notes


@pytest.mark.parametrize(
    "codes", [["A1", "A2", "B7"], ["1.2.3", "1.10.0", "2.0.1"], ["12A", "3B", "7F"], ["5 kg", "9 g"]]
)
def test_codes_stay_texts(tmp_path: Path, codes: list[str]) -> None:
    file = table(tmp_path / "x.csv", {"code": [codes[at % len(codes)] for at in range(N)]})
    assert set(read_pair(file, file).reference["code"].tolist()) == set(codes)


def test_svmlight_has_a_class_and_numbered_columns(tmp_path: Path) -> None:
    (tmp_path / "batch1.dat").write_text("1;10.0 1:15596.1 2:1.86 4:-3\n6;50.0 1:26402.0 3:2.5 # later\n")
    columns = read_table(tmp_path / "batch1.dat").columns
    assert columns.keys() == {"label", "label2", "x1", "x2", "x3", "x4"}
    assert columns["label"] == ["1", "6"]
    np.testing.assert_array_equal(columns["x4"], [-3.0, 0.0])
    (tmp_path / "broken.svmlight").write_text("1 1:2 2:3\n1 1:2 two:3\n")
    with pytest.raises(FileError, match=r"line 2 of broken.svmlight is no line of svmlight"):
        read_table(tmp_path / "broken.svmlight")
    (tmp_path / "vast.svmlight").write_text("1 1:2 999999999:3\n")
    with pytest.raises(FileError, match=r"999,999,999"):
        read_table(tmp_path / "vast.svmlight")


def test_files_without_names_are_compared_by_place_but_not_with_others(tmp_path: Path) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(f"{t},{a}" for t, a in zip(TEMP, AMOUNT, strict=True)))
    pair = read_pair(bare, bare)
    assert {*pair.reference} == {"x1", "x2"}
    assert len(pair.reference["x1"]) == N  # the first line is a row
    named = table(tmp_path / "named.csv", {"temp": [f"{x}" for x in TEMP], "amount": [f"{x}" for x in AMOUNT]})
    with pytest.raises(FileError, match=r"first line of bare.csv holds values"):
        read_pair(named, bare)
    with pytest.raises(FileError, match=r"first line of bare.csv holds values"):
        typed_columns(bare)


def test_columns_that_pandas_numbers_have_names(tmp_path: Path) -> None:
    lines = [",0,1", *(f"{at},{t},{a}" for at, (t, a) in enumerate(zip(TEMP, AMOUNT, strict=True)))]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    pair = read_pair(tmp_path / "x.csv", tmp_path / "x.csv")
    assert {*pair.reference} == {"0", "1"}
    assert any(note.startswith("column 1 was left out: from row to row it only counts on") for note in pair.notes)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (np.arange(N) + 1.0, np.arange(N) + 9000.0, "only counts on"),
        (np.arange(N)[::-1] * 1.0, np.arange(N)[::-1] + 500.0, "only counts on"),
        (np.arange(N) * 0.1, np.arange(N) * 0.1 + 40, "only counts on"),
        (np.random.default_rng(3).permutation(N) * 1.0, np.random.default_rng(4).permutation(N) + 400.0, "numbers the"),
        (1.77e9 + TEMP.round() * 3600, 1.78e9 + TEMP.round() * 3600, "since 1970"),
        (TEMP, TEMP + 1, ""),
        (np.sort(TEMP), np.sort(TEMP + 1), ""),
        (np.random.default_rng(3).integers(0, 300, N) * 1.0, np.random.default_rng(4).integers(0, 300, N) * 1.0, ""),
        (np.arange(3.0), np.arange(3.0), ""),
        (np.arange(N) * 1.0, TEMP, ""),
        (np.full(N, 5.0), np.full(N, 5.0), ""),
        (np.full(N, np.nan), np.arange(N) * 1.0, ""),
    ],
)
def test_what_only_moves_on_is_no_feature(before: np.ndarray, now: np.ndarray, told: str) -> None:
    why = why_left_out(before, now)
    assert (told in why) if told else why == ""


@pytest.mark.parametrize(
    ("text", "is_time"),
    [
        ("05.01.2026 10:00", True),
        ("1/5/2026 10:00 AM", True),
        ("2026-01-05T10:00:00Z", True),
        ("5 Jan 2026", True),
        ("Mon, 05 Jan 2026 10:00:00 GMT", True),
        ("2.0.1", False),
        ("20260105", False),
        ("10/12", False),
    ],
)
def test_dates_are_known_however_they_are_written(text: str, *, is_time: bool) -> None:
    column = np.array([text] * 50, dtype=object)
    assert ("holds times" in why_left_out(column, column)) == is_time


def test_a_counter_that_is_asked_for_is_compared(tmp_path: Path) -> None:
    before = table(tmp_path / "before.csv", {"id": [f"{at}" for at in range(N)]})
    now = table(tmp_path / "now.csv", {"id": [f"{at + N}" for at in range(N)]})
    with pytest.raises(FileError, match="nothing to compare"):
        read_pair(before, now)
    assert "id" in read_pair(before, now, columns=["id"]).reference


def test_lists_and_durations_of_parquet_are_numbers(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"took": pa.array([1_500, None], pa.duration("ms")), "at": [[1.0, 2.0], [3.0, 4.0]], "tags": [["a"], []]}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    found = read_table(tmp_path / "x.parquet").columns
    assert found.keys() == {"took", "at[0]", "at[1]", "tags"}
    np.testing.assert_array_equal(found["took"], [1.5, np.nan])
    np.testing.assert_array_equal(found["at[1]"], [2.0, 4.0])
