"""`shoalctl drift test` on files: answers, exit codes, the report, and the mistakes that people make."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal_server.ctl.cli import run
from shoal_server.ctl.program import Program

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shoalctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def invoke(*words: str | Path) -> tuple[int, str, str]:
        code = run(["drift", "test", *map(str, words)], Program({"XDG_CONFIG_HOME": str(tmp_path)}))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return invoke


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def rows(n: int, *, seed: int = 0, shift: float = 0.0) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "temp": [f"{x:.5g}" for x in rng.normal(20 + shift, 3, n)],
        "flow": ["" if rng.random() < 0.02 else f"{x:.5g}" for x in rng.exponential(2, n)],
        "line": list(rng.choice(["A", "B", "C"], n)),
    }


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "reference.csv", rows(1500))


def test_answers_and_exit_codes(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    same = write_csv(tmp_path / "same.csv", rows(900, seed=1))
    moved = write_csv(tmp_path / "moved.csv", rows(900, seed=2, shift=2))
    few = write_csv(tmp_path / "few.csv", rows(120, seed=3, shift=2))
    answers = {path: shoalctl(reference, path, "--json") for path in (same, moved, few)}
    assert [(code, json.loads(out)["verdict"]) for code, out, _ in answers.values()] == [
        (0, "none"), (3, "drift"), (4, "too_few"),
    ]  # fmt: skip
    found = json.loads(answers[moved][1])
    assert (found["n"], found["n_reference"], found["alpha"]) == (900, 1500, 0.01)
    first = found["features"][0]
    assert {"name", "verdict", "view", "p", "effect", "cause", "psi", "psi_threshold", "js", "js_threshold"} <= set(
        first
    )
    assert (first["name"], first["verdict"], first["view"]) == ("temp", "drift", "location")
    assert first["effect"] == pytest.approx(0.67, abs=0.1)
    assert first["cause"].startswith(("shift", "gain"))
    assert [one["verdict"] for one in found["features"][1:]] == ["none", "none"]


def test_people_are_told_in_words(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    code, out, err = shoalctl(reference, write_csv(tmp_path / "b.csv", rows(900, seed=2, shift=2)))
    assert (code, err) == (3, "")
    assert out.startswith("Drift in 1 of 3 features, most plainly temp (900 rows against 1,500).")
    assert "location +0.6" in out


def test_alpha_and_columns_are_heard(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    moved = write_csv(tmp_path / "b.csv", rows(900, seed=2, shift=2))
    code, out, _ = shoalctl(reference, moved, "--json", "--columns", "flow, line")
    assert (code, {one["name"] for one in json.loads(out)["features"]}) == (0, {"flow", "line"})
    slightly = write_csv(tmp_path / "c.csv", rows(900, seed=2, shift=0.6))
    assert [shoalctl(reference, slightly, "--alpha", alpha)[0] for alpha in ("0.05", "1e-12")] == [3, 0]
    code, _, err = shoalctl(reference, moved, "--alpha", "5")
    assert (code, "between 0 and 1" in err) == (2, True)


def test_other_formats_hold_the_same_rows(shoalctl: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(800, 2))
    words = rng.choice(["a", "b"], 800)
    np.savez(tmp_path / "a.npz", x=x, word=words)
    np.savez(tmp_path / "b.npz", x=x + np.array([0, 9]), word=words)
    code, out, _ = shoalctl(tmp_path / "a.npz", tmp_path / "b.npz", "--json")
    first = json.loads(out)["features"][0]
    assert (code, first["name"], first["verdict"]) == (3, "x[1]", "drift")
    columns = {"x[0]": x[:, 0], "x[1]": x[:, 1], "word": words}
    semicolons = write_csv(tmp_path / "c.csv", columns, ";")
    assert shoalctl(tmp_path / "a.npz", semicolons)[0] == 0
    np.save(tmp_path / "d.npy", x)
    assert shoalctl(tmp_path / "d.npy", tmp_path / "d.npy")[0] == 0


def test_parquet_is_read_where_pyarrow_is_installed(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    columns = {name: [None if v == "" else v for v in values] for name, values in rows(1500).items()}
    columns["temp"] = [float(value) for value in columns["temp"]]
    columns["flow"] = [None if v is None else float(v) for v in columns["flow"]]
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert shoalctl(reference, tmp_path / "a.parquet")[0] == 0


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_report_is_one_safe_file(shoalctl: Run, tmp_path: Path) -> None:
    a, b = rows(900), rows(900, seed=1, shift=2)
    for columns in (a, b):
        columns["<i>x"] = ["<script>alert(1)</script>" if float(t) > 22 else "ok" for t in columns["temp"]]
    paths = [write_csv(tmp_path / f"{name}.csv", columns) for name, columns in (("a", a), ("b", b))]
    code, _, _ = shoalctl(*paths, "--html", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert code == 3
    assert page.tags.count("article") == page.tags.count("svg") == 4
    assert (page.links, {"script", "link", "img"} & set(page.tags)) == ([], set())
    assert page.tags.count("i") == 2  # the legend's own
    assert text.index("&lt;i&gt;x") < text.index("line</h3>")  # drift first
    code, _, err = shoalctl(*paths, "--html", tmp_path / "no" / "report.html")
    assert (code, "can't be written" in err) == (2, True)


def mistake(tmp_path: Path, name: str, content: str) -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "temp,flow,line\n", "no rows"),
        ("x.csv", "4,5,6\n7,8,9\n", "instead of names"),
        ("x.csv", "temp,flow,line\n1,2\n", "row 2 of x.csv has 2 values, but there are 3 columns"),
        ("x.csv", "temp,temp,line\n1,2,A\n", "same name: temp"),
        ("x.csv", "temp,line\n1,A\n", "--ignore flow"),
        (
            "x.csv",
            "temp,flow,line\nwarm,2,A\ncold,3,B\n",
            "temp holds numbers in reference.csv, but texts such as 'warm'",
        ),
        ("x.xlsx", "?", "save the sheet as CSV"),
        ("x.pkl", "?", "pickles run code"),
        ("x.doc", "?", "give one of .csv"),
        ("x.npz", "nonsense", "holds no arrays of numpy"),
        ("x.parquet", "nonsense", "arquet"),
    ],
)
def test_a_mistake_is_explained(
    shoalctl: Run, reference: Path, tmp_path: Path, *, name: str, content: str, told: str
) -> None:
    code, out, err = shoalctl(reference, mistake(tmp_path, name, content))
    assert (code, out) == (2, "")
    assert told in err


def test_semicolons_and_decimal_commas_are_read(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    commas = {name: [str(v).replace(".", ",") for v in values] for name, values in rows(900, seed=4).items()}
    for delimiter in (";", "\t", "|"):
        code, out, _ = shoalctl(reference, write_csv(tmp_path / "b.csv", commas, delimiter), "--json")
        answer = json.loads(out)
        assert (code, answer["verdict"]) == (0, "none")
        assert any("decimal commas of b.csv" in note for note in answer["notes"])


def test_json_lines_hold_the_same_rows(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    columns = rows(900, seed=4)
    path = tmp_path / "b.jsonl"
    lines = []
    for temp, flow, line in zip(*columns.values(), strict=True):
        lines.append({"temp": float(temp), "line": line} | ({"flow": float(flow)} if flow else {}))
    path.write_text("\n".join(map(json.dumps, lines)))
    assert shoalctl(reference, path)[0] == 0
    path.write_text('{"temp": [1]}\n')
    assert "line 1 of b.jsonl is no object of plain values" in shoalctl(reference, path)[2]
    path.write_text('{"temp": 1}\nnonsense\n')
    assert "line 2 of b.jsonl is no JSON" in shoalctl(reference, path)[2]


def test_times_are_left_out_and_said_so(shoalctl: Run, tmp_path: Path) -> None:
    paths = []
    for month in (1, 2):
        columns = rows(900, seed=month) | {"day": [f"2026-{month:02}-{1 + i % 28:02}" for i in range(900)]}
        paths.append(write_csv(tmp_path / f"{month}.csv", columns))
    code, out, _ = shoalctl(*paths, "--json")
    assert (code, json.loads(out)["notes"][0][:48]) == (0, "day was left out: it holds times, such as 2026-0")


def test_texts_that_became_numbers_are_explained_and_can_be_ignored(
    shoalctl: Run, reference: Path, tmp_path: Path
) -> None:
    coded = write_csv(tmp_path / "b.csv", rows(900, seed=1) | {"line": [i % 3 for i in range(900)]})
    code, _, err = shoalctl(reference, coded)
    assert (code, "line holds texts such as 'A' in reference.csv, but numbers such as 0 in b.csv" in err) == (2, True)
    assert shoalctl(reference, coded, "--ignore", "line")[0] == 0
    code, _, err = shoalctl(reference, coded, "--ignore", "nothing")
    assert (code, "neither file has a column nothing" in err) == (2, True)


def test_codes_with_zeros_in_front_stay_texts(shoalctl: Run, tmp_path: Path) -> None:
    before = {"zip": [["01", "10", "AB"][i % 3] for i in range(900)]}
    now = {"zip": [["01", "10"][i % 2] for i in range(900)]}
    paths = [write_csv(tmp_path / f"{at}.csv", columns) for at, columns in enumerate((before, now))]
    code, out, _ = shoalctl(*paths, "--json")
    assert (code, json.loads(out)["features"][0]["cause"][:22]) == (3, "missing category: 'AB'")


def test_a_false_alarm_rate_may_be_said_in_words(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    same = write_csv(tmp_path / "b.csv", rows(900, seed=1))
    told = {text: shoalctl(reference, same, "--false-alarm-rate", text, "--json")[1] for text in ("1%", "1 in 100")}
    assert {json.loads(out)["alpha"] for out in told.values()} == {0.01}
    assert "probability such as" in shoalctl(reference, same, "--false-alarm-rate", "rarely")[2]


def test_files_without_values_and_missing_files_are_explained(shoalctl: Run, reference: Path, tmp_path: Path) -> None:
    empty = write_csv(tmp_path / "empty.csv", {"temp": ["", "NaN"], "flow": ["", ""]})
    code, _, err = shoalctl(empty, empty)
    assert (code, "nothing to compare" in err, "no value in either" in err) == (2, True, True)
    assert shoalctl(reference, tmp_path / "none.csv")[0] == 2
    np.savez(tmp_path / "p.npz", x=np.array([{}, 1], dtype=object))
    assert "never loaded" in shoalctl(tmp_path / "p.npz", reference)[2]


def test_a_column_that_went_silent_is_drift_and_identifiers_are_left_out(
    shoalctl: Run, reference: Path, tmp_path: Path
) -> None:
    silent = rows(900, seed=1) | {"temp": [""] * 900}
    code, out, _ = shoalctl(reference, write_csv(tmp_path / "b.csv", silent), "--json")
    assert (code, json.loads(out)["features"][0]["cause"]) == (3, "missing source: every value is missing")
    named = [rows(500, seed=s) | {"id": [f"row {s}/{i}" for i in range(500)]} for s in (1, 2)]
    paths = [write_csv(tmp_path / f"{i}.csv", columns) for i, columns in enumerate(named)]
    code, out, _ = shoalctl(*paths, "--json")
    assert (code, "id was left out" in json.loads(out)["notes"][0]) == (0, True)


def test_help_of_drift_loads_no_statistics() -> None:
    script = "import sys; from shoal_server.ctl.cli import main; sys.argv = ['shoalctl', 'drift', 'test', '--help']\n"
    script += "try: main()\nexcept SystemExit: pass\nassert not {'numpy', 'scipy'} & set(sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "--time-ordered" in answer.stdout


def by_line(n: int, *, seed: int, shares: Sequence[float], heat: float = 0.0) -> dict[str, list[Any]]:
    """Return rows whose temperature depends on the line, and also on the heat."""
    rng = np.random.default_rng(seed)
    line = rng.choice(["A", "B", "C"], n, p=shares)
    warmth = {"A": 20.0, "B": 24.0, "C": 28.0}
    return {"temp": [f"{warmth[one] + heat + rng.normal():.5g}" for one in line], "line": list(line)}


def test_another_mix_of_a_given_column_is_told_from_other_values(shoalctl: Run, tmp_path: Path) -> None:
    before = write_csv(tmp_path / "before.csv", by_line(1500, seed=1, shares=(0.4, 0.4, 0.2)))
    mixed = write_csv(tmp_path / "mixed.csv", by_line(1200, seed=2, shares=(0.2, 0.3, 0.5)))
    hot = write_csv(tmp_path / "hot.csv", by_line(1200, seed=3, shares=(0.2, 0.3, 0.5), heat=2.0))
    told = {}
    for path in (mixed, hot):
        code, out, _ = shoalctl(before, path, "--given", "line", "--features", "temp", "--json")
        assert code == 3
        told[path] = next(one for one in json.loads(out)["features"] if one["name"] == "temp")
    assert (told[mixed]["verdict"], told[mixed]["explained_by_mix"]) == ("drift", True)
    assert told[mixed]["cause"].startswith("mix of line")
    assert (told[hot]["verdict"], told[hot]["explained_by_mix"]) == ("drift", False)
    assert told[hot]["cause"].startswith(("shift", "gain"))
    assert told[hot]["p_given"] < 1e-6
    code, out, _ = shoalctl(before, mixed, "--given", "line")
    assert "another mix alone explains 1 of 1" in out
    code, _, err = shoalctl(before, mixed, "--given", "lime")
    assert code == 2
    assert "temp, line" in err
