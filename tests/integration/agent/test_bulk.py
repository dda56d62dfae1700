"""`predict` over files: every form in and out, in memory of a fixed size, and no half file ever."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures_models import linear_bundle, make_bundle, mixed_model, mixed_schema, write_layout
from shoal_agent.adapters.identity import FolderLock
from shoal_agent.bulk import job as bulk_job
from shoal_agent.cli import main
from shoal_agent.status import stored_status

MIXED = make_bundle(mixed_model(), mixed_schema(missing_sentinel="?"), name="visitors")
ROWS = [{"age": 30.0, "visits": 2, "city": "Bern"}, {"age": None, "visits": 1, "city": None}]
HEAD = "note,city,age,visits"


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_layout(tmp_path / "bundle", *MIXED))


def many(folder: Path, rows: int) -> Path:
    path = folder / "many.csv"
    lines = [f"n{at},{'Bern' if at % 3 else ''},{at % 80},{at % 7}" for at in range(rows)]
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return path


def write(path: Path) -> Path:
    """Write two rows, and a column of no feature, in the form that the name says."""
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    match path.suffixes:
        case [".json"]:
            path.write_text(json.dumps([{**row, "note": f"n{at}"} for at, row in enumerate(ROWS)]))
        case [".jsonl"]:
            path.write_text("".join(json.dumps({"note": f"n{at}", **row}) + "\n" for at, row in enumerate(ROWS)))
        case [".npz"]:
            np.savez(path, note=["n0", "n1"], age=[30, np.nan], visits=[2, 1], city=["Bern", "?"])
        case [".parquet"]:
            pq.write_table(pa.table({"note": ["n0", "n1"], **columns}), path)
        case [".tsv"]:
            path.write_text("\ufeffcity\tage\tvisits\tnote\nBern\t30\t2\tn0\n\t\t1\tn1\n", encoding="utf-8")
        case [*_]:
            text = f"{HEAD}\nn0,Bern,30,2\n\nn1,,,1\n".encode()
            path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def told(path: Path) -> list[dict[str, object]]:
    """Read answers back as rows of note, label and value."""
    match path.suffix:
        case ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        case ".parquet":
            rows = pq.read_table(path).to_pylist()
        case _:
            rows = list(csv.DictReader(path.read_text().splitlines()))
    return [{"note": row["note"], "label": row["label"], "value": _number(row["value"])} for row in rows]


def _number(value: object) -> float | None:
    return None if value is None or str(value) == "nan" else float(str(value))


FORMS = ["a.json", "a.jsonl", "a.npz", "a.parquet", "a.tsv", "a.csv", "a.csv.gz"]


@pytest.mark.parametrize("given", FORMS)
def test_every_form_in_gives_the_same_answers_in_every_form_out(given, bundle, tmp_path, capsys):
    source = str(write(tmp_path / given))
    expected = [{"note": "n0", "label": "south", "value": 32.0}, {"note": "n1", "label": "elsewhere", "value": None}]
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        out = tmp_path / name
        assert main(["predict", "--bundle", bundle, "--input", source, "--keep", "note", "--output", str(out)]) == 0
        assert told(out) == expected
    assert "2 rows in " in capsys.readouterr().err
    assert main(["predict", "--bundle", bundle, "--input", source]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["bundle"], document["digest"]) == ("visitors:1.0.0", MIXED[0])
    assert [row["label"] for row in document["predictions"]] == ["south", "elsewhere"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_come_from_standard_input(form, bundle, tmp_path, monkeypatch, capsys):
    raw = write(tmp_path / f"rows.{form}").read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    assert main(["predict", "--bundle", bundle, "--input", "-", "--input-format", form]) == 0
    assert [row["label"] for row in json.loads(capsys.readouterr().out)["predictions"]] == ["south", "elsewhere"]


def test_many_rows_go_through_in_tables_and_in_order(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_job, "MOST_ROWS", 64)
    out = tmp_path / "out.csv"
    source = str(many(tmp_path, 1000))
    assert main(["predict", "--bundle", bundle, "--input", source, "--keep", "note", "--output", str(out)]) == 0
    rows = told(out)
    assert [row["note"] for row in rows] == [f"n{at}" for at in range(1000)]
    assert [row["value"] for row in rows] == [float(at % 80 + at % 7) for at in range(1000)]


def test_arrays_of_whole_tensors_are_taken_too(tmp_path, capsys):
    bundle = str(write_layout(tmp_path / "linear", *linear_bundle()))
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    for name, array in (("c", x), ("f", np.asfortranarray(x))):
        np.savez_compressed(tmp_path / f"{name}.npz", x=array)
        assert main(["predict", "--bundle", bundle, "--input", str(tmp_path / f"{name}.npz")]) == 0
    documents = [
        json.loads(line)
        for line in capsys.readouterr().out.replace("\n]}\n", "]}\x00").replace("\n", "").split("\0")[:2]
    ]
    assert len(documents[0]["predictions"]) == 10
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEAD}\nn,Bern,30,two\n", "bad.csv, row 1 (line 2), column 'visits': expected int64, got 'two'"),
        (f"{HEAD}\nn,Bern,30,1\nn,Bern,NA,1\n", "bad.csv, row 2 (line 3), column 'age': expected float32, got 'NA'"),
        ("n;city;age;visits\nn;Bern;30,5;1\n", "numbers are read with a decimal point"),
        (f"{HEAD}\nn,Bern,30,\n", "column 'visits': expected whole numbers, got null"),
        (f"{HEAD}\nn,Bern,30\n", "bad.csv, row 1 (line 2) has 3 cells, the head line 4"),
        ("city,Age,visits\nBern,30,2\n", "bad.csv lacks the column 'age'; it has 'city', 'Age', 'visits'"),
        ("", "bad.csv is empty; expected a head line that names the columns"),
        (f'{HEAD}\nn,"Bern,30,2\n', "bad.csv is no CSV: unexpected end of data"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(text, says, bundle, tmp_path, capsys):
    bad, out = tmp_path / "bad.csv", tmp_path / "out.csv"
    bad.write_text(text)
    out.write_text("of yesterday")
    assert main(["predict", "--bundle", bundle, "--input", str(bad), "--output", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert out.read_text() == "of yesterday"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--input", "absent.csv"], "there is no input file absent.csv"),
        (["--input", "rows.xlsx"], "rows.xlsx ends with '.xlsx', expected .json, .jsonl, .csv"),
        (["--input", "rows.csv", "--output", "out.xlsx"], "answers are written as .csv, .jsonl, .parquet"),
        (["--input", "rows.csv", "--output", "absent/out.csv"], "its folder is missing"),
        (["--input", "rows.csv", "--keep", "id"], "rows.csv lacks the column 'id'"),
        (["--input", "label.csv", "--keep", "label", "--output", "o.csv"], "'label' can't be kept"),
        (["--input", "latin.csv"], "latin.csv is no UTF-8: byte 0xe8"),
        (["--input", "rows.csv", "--count"], "--count needs a device that has joined"),
        (["--input", "-", "--input-format", "npz"], "npz can't be read from standard input"),
        (["--input", "rows.csv", "--input-format", "parquet"], "rows.csv is no Parquet file that can be read"),
        (["--input", "rows.csv", "--input-format", "npz"], "rows.csv is no .npz file"),
        (["--input", "objects.npz"], "holds Python objects, which could be programs"),
    ],
)
def test_likely_mistakes_are_answered(words, says, bundle, monkeypatch, capsys):
    monkeypatch.chdir(Path(bundle).parent)
    for name in ("rows.csv", "label.csv", "rows.xlsx"):
        Path(name).write_text(f"{HEAD},label\nn0,Bern,30,2,x\n")
    Path("latin.csv").write_bytes(f"{HEAD}\nn0,Genève,30,2\n".encode("latin1"))
    np.savez("objects.npz", age=[1.0], visits=[1], city=np.array(["Bern"], dtype=object))
    assert main(["predict", "--bundle", bundle, *words]) == 2
    told_words = capsys.readouterr()
    assert says in told_words.err
    assert told_words.out == ""


def test_parquet_without_its_library_says_what_to_install(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    source = str(write(tmp_path / "rows.csv"))
    assert main(["predict", "--bundle", bundle, "--input", source, "--output", str(tmp_path / "o.parquet")]) == 1
    assert "pip install pyarrow" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_leaves_no_half_file(ending, bundle, tmp_path):
    out, pipe = tmp_path / "out.csv", tmp_path / "rows.csv"
    os.mkfifo(pipe)
    words = ["predict", "--bundle", bundle, "--input", "-", "--input-format", "csv", "--output", str(out)]
    command = [sys.executable, "-m", "shoal_agent.cli", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        running.stdin.write(f"{HEAD}\n" + "n,Bern,30,2\n" * 10_000)
        running.stdin.flush()
        while not (parts := list(tmp_path.glob(".out.csv.*.part"))) or not parts[0].stat().st_size:
            assert running.poll() is None
        running.send_signal(ending)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "was not finished" in said
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_rows_are_counted_only_where_that_is_asked_for_and_no_agent_runs(world, tmp_path, capsys):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent():
        world.committed(digest)
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.ones((700, 2), np.float32))
    words = ["predict", "--state", str(world.state), "--input", str(rows), "--output", str(tmp_path / "o.csv")]
    before = stored_status(world.state)["spool"]["windows"]
    assert main(words) == 0
    assert stored_status(world.state)["spool"]["windows"] == before
    assert main([*words, "--count"]) == 0
    assert stored_status(world.state)["spool"]["windows"] == before + 1
    np.savez(rows, x=np.ones((700, 3), np.float32))
    assert main([*words, "--count"]) == 2
    assert stored_status(world.state)["spool"]["windows"] == before + 1
    lock = FolderLock(world.state)
    lock.acquire()
    assert main([*words, "--count"]) == 1
    lock.release()
    assert "in use by the agent" in capsys.readouterr().err
