"""Recorded windows as arrays: exact sums, bounds that hold, files that come back as they were, or say what is wrong."""

import runpy
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shoal_protocol.errors import CallerError, ContentError, LocalError
from shoal_protocol.profile.profile import merge, summarise
from shoal_protocol.profile.recording import (
    Header,
    RecordedBundle,
    RecordedWindow,
    encode_recording,
    reference_document,
)
from shoal_server.analysis import Recording, Windows, read_windows, write_windows
from shoal_server.testing.drift_fleet import training_reference

DIGEST = "sha256:" + "ab" * 32
REFERENCE = training_reference()
RANDOM = np.random.default_rng(7)
ROWS = [RANDOM.normal(at % 3, 1, 50) for at in range(12)]
FEATURE = "normal"


def profile_of(values: np.ndarray):
    spec = REFERENCE.spec
    columns = {stream.name: RANDOM.normal(size=len(values)) for stream in spec.streams}
    for stream in spec.streams:
        if hasattr(stream.grid, "categories"):
            columns[stream.name] = np.array(["0"] * len(values), dtype=object)
    return summarise(spec, columns | {FEATURE: values})


PROFILES = [profile_of(values) for values in ROWS]


def recorded(at: int) -> RecordedWindow:
    profile = PROFILES[at]
    return RecordedWindow(
        device=f"cam-{at % 4}",
        digest=DIGEST,
        seq=at // 4,
        start_ms=60_000 * (at // 4),
        length_ms=60_000,
        n=profile.n,
        errors=0,
        received_at=60.0 * at,
        spec_hash=profile.spec_hash,
        cells=profile.cells.tolist(),
        moments=[(a, b) for a, b in profile.moments.tolist()],
        latency=[0, 50],
    )


HEADER = Header(
    slot="quality",
    exported_at=1000.0,
    start_ms=0,
    end_ms=180_000,
    bundles={DIGEST: RecordedBundle(name="quality:1.0.0", reference=reference_document(REFERENCE), window_ms=60_000)},
    devices={f"cam-{at}": {"site": "bern" if at < 2 else "basel\u2028line"} for at in range(4)},
    cohort_keys=("site",),
)
RECORDING = Recording.of(HEADER, [recorded(at) for at in range(12)])


@pytest.fixture
def windows() -> Windows:
    return RECORDING.windows()


def test_sums_are_exact_in_any_order(windows: Windows) -> None:
    assert windows.merged() == merge(PROFILES)
    shuffled = windows.select(np.ones(12, np.bool_))
    assert shuffled.merged() == windows.merged()
    devices, cells = windows.merged_by(windows.device)
    assert devices.tolist() == ["cam-0", "cam-1", "cam-2", "cam-3"]
    assert np.array_equal(cells.sum(axis=0), windows.merged().cells)
    assert np.array_equal(windows.counts(FEATURE).sum(axis=1), windows.n)


@pytest.mark.parametrize("q", [0.0, 0.05, 0.5, 0.9, 0.99, 1.0])
def test_the_true_quantile_lies_within_the_bounds(windows: Windows, q: float) -> None:
    values = np.sort(np.concatenate(ROWS))
    true = values[min(max(int(np.ceil(q * len(values))) - 1, 0), len(values) - 1)]
    found = windows.quantile(FEATURE, q)
    assert found.low - 1e-4 <= true <= found.high + 1e-4
    assert found.low <= found.value <= found.high


def test_what_is_asked_wrongly_is_explained(windows: Windows) -> None:
    for wrong in (lambda: windows.quantile("label", 0.5), lambda: windows.quantile(FEATURE, 2)):
        with pytest.raises(CallerError):
            wrong()
    with pytest.raises(CallerError, match="there is no stream"):
        windows.counts("nothing")
    with pytest.raises(CallerError, match="mask of 12"):
        windows.select(np.array([True]))
    with pytest.raises(CallerError, match="quality:1.0.0"):
        RECORDING.windows("other:1")


def test_a_notebook_shows_what_there_is_in_a_line_each(windows: Windows) -> None:
    shown = repr(windows)
    assert shown.startswith(
        "<Windows of quality:1.0.0: 12 of 4 devices, 1970-01-01T00:00:00.000 to 1970-01-01T00:02:00.000"
    )
    assert "600 rows" in shown
    assert repr(Recording(HEADER, {DIGEST: windows}, damaged=2)) == (
        f"<Recording of slot quality>\n  {shown}\n  2 damaged windows were left out"
    )
    assert "0 of 0 devices, 0 rows" in repr(windows.select(np.zeros(12, bool)))


def test_a_fact_that_no_device_has_is_explained(windows: Windows) -> None:
    with pytest.raises(CallerError, match=r"no device has a label or fact 'plant'; there are: site"):
        windows.fact("plant")


@pytest.mark.parametrize(
    ("facts", "groups"),
    [({}, ["fleet"]), ({"os": "linux"}, ["fleet"]), ({"site": "bern"}, ["(no site)", "bern"])],
)
def test_the_example_reads_any_fleet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    facts: dict[str, str],
    groups: list[str],
) -> None:
    path = tmp_path / "windows.npz"
    header = msgspec.structs.replace(HEADER, devices={f"cam-{at}": facts if at else {} for at in range(4)})
    write_windows(Recording.of(header, [recorded(at) for at in range(12)]), path)
    monkeypatch.setattr(sys, "argv", ["read_windows.py", str(path)])
    runpy.run_path(str(Path(__file__).parents[4] / "examples" / "read_windows.py"), run_name="__main__")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "quality:1.0.0 in slot quality: 12 windows, 600 rows"
    assert [line.split("T00 ")[1].split(f" {FEATURE}")[0].strip() for line in lines] == groups


def test_edges_and_labels_fit_the_counts(windows: Windows) -> None:
    for feature in windows.features:
        assert len(windows.labels(feature)) == len(windows.edges(feature)) == windows.counts(feature).shape[1]
    edges = windows.edges(FEATURE)
    assert np.isnan(edges[0]).all()
    assert (edges[1, 0], edges[-1, 1]) == (-np.inf, np.inf)
    assert np.array_equal(edges[1:-1, 1], edges[2:, 0])


@pytest.mark.parametrize("suffix", [".jsonl", ".npz"])
def test_files_come_back_as_they_were(windows: Windows, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    write_windows(RECORDING, path)
    again = read_windows(path)
    assert again.header == HEADER
    same = again.windows("quality:1.0.0")
    for name in ("device", "seq", "start", "length_ms", "n", "errors", "received_at", "cells", "moments", "latency"):
        assert np.array_equal(getattr(same, name), getattr(windows, name)), name
    assert same.fact("site")[2] == "basel\u2028line"


def test_a_file_that_broke_off_is_no_recording(tmp_path: Path) -> None:
    lines = list(encode_recording(HEADER, [recorded(at) for at in range(12)]))
    path = tmp_path / "w.jsonl"
    for kept, told in ((lines[:-1], "end early, after 12"), (lines[:5] + lines[-1:], "expected 12 windows, got 4")):
        path.write_bytes(b"".join(kept))
        with pytest.raises(ContentError, match=told):
            read_windows(path)
    path.write_bytes(lines[0].replace(b'"format_version":1', b'"format_version":9') + b"".join(lines[1:]))
    with pytest.raises(ContentError, match="newer Shoal|version 9"):
        read_windows(path)


def test_windows_that_no_grid_gives_are_counted_and_left_out() -> None:
    bad = RecordedWindow(**{name: getattr(recorded(0), name) for name in RecordedWindow.__struct_fields__} | {"n": 999})
    found = Recording.of(HEADER, [recorded(0), bad])
    assert (len(found), found.damaged) == (1, 1)


def test_tables_hold_every_count_or_say_what_to_install(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = windows.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    one = frame[frame["feature"] == FEATURE]
    assert one["count"].sum() == windows.n.sum()
    assert set(one["device"]) == {"cam-0", "cam-1", "cam-2", "cam-3"}
    assert str(frame["start"].dtype) == "datetime64[ms, UTC]"
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(LocalError) as caught:
        windows.to_polars()
    assert "pip install polars" in caught.value.hint


COLUMNS = ["device", "start", "length_s", "n", "feature", "bin", "label", "low", "high", "count"]


def test_a_polars_frame_holds_what_the_arrays_hold(windows: Windows) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = windows.to_polars()
    assert frame.columns == COLUMNS
    assert frame.schema["start"] == polars.Datetime("ms", "UTC")
    by_label = frame.filter(polars.col("feature") == FEATURE).group_by("label").agg(polars.col("count").sum())
    totals = dict(zip(windows.labels(FEATURE), windows.counts(FEATURE).sum(axis=0).tolist(), strict=True))
    assert dict(by_label.iter_rows()) == {label: count for label, count in totals.items() if count}
    assert frame["low"].is_nan().sum() == 0
    assert frame["low"].null_count() == windows.to_pandas()["low"].isna().sum()
    nothing = windows.select(np.zeros(len(windows), dtype=bool)).to_polars()
    assert (nothing.height, nothing.schema) == (0, frame.schema)


def test_an_arrow_table_holds_what_the_arrays_hold_and_becomes_parquet(windows: Windows, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import compute, parquet

    table = windows.to_arrow()
    assert table.column_names == COLUMNS
    assert table.schema.field("start").type == pyarrow.timestamp("ms", tz="UTC")
    one = table.filter(compute.equal(table["feature"], FEATURE))
    assert compute.sum(one["count"]).as_py() == windows.n.sum()
    parquet.write_table(table, tmp_path / "windows.parquet")
    assert parquet.read_table(tmp_path / "windows.parquet").equals(table)
    nothing = windows.select(np.zeros(len(windows), dtype=bool)).to_arrow()
    assert (nothing.num_rows, nothing.schema) == (0, table.schema)
