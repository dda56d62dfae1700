"""Loaded models on the real onnxruntime."""

import itertools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures_models import (
    constant_model,
    constant_schema,
    linear_bundle,
    linear_model,
    linear_schema,
    linear_spec,
    linear_weights,
    make_bundle,
    mixed_model,
    mixed_schema,
    write_layout,
)
from shoal_agent.errors import UnfitError
from shoal_agent.runtime.bundle_files import from_blobs
from shoal_agent.runtime.engine import Engine
from shoal_agent.runtime.errors import InferenceError, InputError, ModelLoadError
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.nan_screen import holds_nan, nan_screen
from shoal_agent.runtime.observer import RowLayout
from shoal_agent.runtime.static_binding import StaticBinding, is_worthwhile
from shoal_protocol.bundle.schema import Runtime
from shoal_protocol.profile.grid import CategoricalGrid, fit_numeric
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise

X = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)


def load(bundle: tuple[str, dict[str, bytes]], **options: Any) -> LoadedModel:
    digest, blobs = bundle
    return LoadedModel.load(from_blobs(digest, lambda name, _: blobs[name]), **options)


def scores(x: np.ndarray) -> np.ndarray:
    z = np.exp(x @ linear_weights())
    return z / z.sum(axis=1, keepdims=True)


def test_a_prediction_is_the_models_and_names_its_bundle() -> None:
    model = load(linear_bundle())
    first, second = model.predict({"x": X}), model.predict({"x": X[:1]})
    assert np.allclose(first["probabilities"], scores(X), atol=1e-6)
    assert list(first) == ["label", "probabilities"]
    assert first.bundle == "quality:1.0.0"
    assert first.digest == model.digest
    assert first.prediction_id != second.prediction_id
    assert "bundle='quality:1.0.0'" in repr(first)


def test_single_rows_on_the_static_binding_are_equal_and_the_callers_own() -> None:
    model = load(linear_bundle())
    assert model._binds  # a linear model gains most of all
    plain = model.engine.session.run(None, {"x": X[:1]})
    answers = [model.predict({"x": X[at : at + 1]}) for at in range(20)]
    assert model._thread.binding is not None
    assert [a.tobytes() for a in answers[0].values()] == [a.tobytes() for a in plain]
    expected = scores(X[:20])
    for at, answer in enumerate(answers):  # later runs must not have changed earlier answers
        assert np.allclose(answer["probabilities"], expected[at : at + 1], atol=1e-6)
        answer["probabilities"][:] = 0


def test_an_array_from_another_process_takes_the_static_binding() -> None:
    model = load(linear_bundle())
    model.predict({"x": X[:1]})
    binding = model._thread.binding
    assert binding is not None
    unpickled = pickle.loads(pickle.dumps(X[:1]))
    assert unpickled.dtype is not X.dtype  # the same dtype by another name
    assert binding.run({"x": unpickled}) is not None
    assert binding.run({"x": X[:1].astype(">f4")}) is None
    assert model._feeds(feeds := {"x": unpickled}) is feeds


def test_threads_have_bindings_of_their_own() -> None:
    model = load(linear_bundle())
    expected = scores(X)
    wrong: list[int] = []

    def ask(at: int) -> None:
        for _ in range(300):
            got = model.predict({"x": X[at : at + 1]})["probabilities"]
            if not np.allclose(got, expected[at : at + 1], atol=1e-6):
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert model.observer.close_window().n == 1800


def test_columns_rows_and_tensors_answer_the_same() -> None:
    model = load(linear_bundle())
    tensor = model.predict({"x": X[:3]})
    columns = model.predict({f"x{at}": X[:3, at] for at in range(4)})
    rows = model.predict_rows([{f"x{at}": float(row[at]) for at in range(4)} for row in X[:3]])
    doubles = model.predict({"x": X[:3].astype(np.float64)})
    for other in (columns, rows, doubles):
        assert np.array_equal(other["probabilities"], tensor["probabilities"])


@pytest.mark.parametrize("column", [[1.0, 2.0, 3.0], np.arange(3.0), np.arange(3, dtype=np.float32)])
def test_a_column_of_a_table_has_a_row_a_value_whatever_its_type(column: Any) -> None:
    answer = load(make_bundle(constant_model(2.5, 1), constant_schema(1), name="one")).predict({"x": column})
    assert answer["value"].tolist() == [[2.5]] * 3


def test_text_in_text_out() -> None:
    spec = ProfileSpec(
        (
            Stream("age", "input", fit_numeric(np.arange(90)), "age"),
            Stream("city", "input", CategoricalGrid(("Basel", "Bern")), "city"),
            Stream("label", "output", CategoricalGrid(("north", "south")), "label"),
        )
    )
    model = load(make_bundle(mixed_model(), mixed_schema(missing_sentinel="?"), spec=spec))
    cities = ["Bern", None, "Rome"]
    rows = [{"age": age, "visits": 1, "city": city} for age, city in zip([30, None, 50], cities, strict=True)]
    got = model.predict_rows(rows)
    assert got["label"].ravel().tolist() == ["south", "elsewhere", "elsewhere"]
    ages = np.array([[30], [np.nan], [50]], np.float32)
    texts = np.array([["Bern"], ["?"], ["Rome"]], object)
    expected = summarise(spec, {"age": ages, "city": texts, "label": got["label"]})
    assert model.observer.close_window().profile == expected


def test_what_is_observed_equals_the_reference_on_every_path() -> None:
    model = load(linear_bundle())
    seen = []
    for start, stop in [(0, 1), (1, 2), (2, 12), (12, 13), (13, 50)]:
        answer = model.predict({"x": X[start:stop]})
        seen.append({"x": X[start:stop], **answer})
    whole = {name: np.concatenate([part[name] for part in seen]) for name in seen[0]}
    summary = model.observer.close_window()
    assert summary.profile == summarise(linear_spec(), whole)
    assert (summary.n, summary.rows, summary.calls) == (50, 50, 5)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": X[:, :3]}, r"'x': expected float32\[N, 4\], got float32\[50, 3\]"),
        ({"x": X[:1, :3]}, r"'x': expected float32\[N, 4\], got float32\[1, 3\]"),
        ({"x": X[0]}, r"got float32\[4\]"),
        ({"x": X[:0]}, "'x': expected at least one row, got none"),
        ({"x": X.astype(str)}, "'x': expected numbers, got text"),
        ({"x": None}, "'x'"),
        ({}, "'x0': expected a value of float32, got none"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_in_words(inputs: dict[str, Any], says: str) -> None:
    model = load(linear_bundle())
    model.predict({"x": X[:1]})
    with pytest.raises(InputError, match=says):
        model.predict(inputs)
    summary = model.observer.close_window()
    assert (summary.refused, summary.errors, summary.calls) == (1, 0, 1)


@pytest.mark.parametrize("features", [4, 5000])
def test_missing_values_are_refused_where_the_bundle_says_so_on_every_path(features: int) -> None:
    model = load(make_bundle(linear_model(features), linear_schema(features, missing="refused")))
    x = np.zeros((3, features), np.float32)
    x[1, 2] = np.nan
    x[2, 1:3] = np.inf, -np.inf  # not missing
    model.predict({"x": x[:1]})
    assert model.predict({"x": x[2:]}).bundle == "quality:1.0.0"
    for rows, row in ((x[1:2], 0), (x, 1)):
        with pytest.raises(InputError, match=f"'x2' in row {row}: expected a value"):
            model.predict({"x": rows})
    with pytest.raises(InputError, match="'x2' in row 0"):
        model.predict_rows([{f"x{at}": None if at == 2 else 0.5 for at in range(features)}])
    assert model.observer.close_window().refused == 3


def test_a_model_that_fails_is_told_from_an_input_that_does() -> None:
    from onnx import TensorProto, helper

    from fixtures_models import finish

    reshape = finish(
        [helper.make_node("Reshape", ["x", "shape"], ["value"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        {"shape": np.array([4, 1], np.int64)},
    )
    model = load(make_bundle(reshape, constant_schema()))
    assert model.predict({"x": np.zeros((2, 2), np.float32)})["value"].shape == (4, 1)
    with pytest.raises(InferenceError, match=r"quality:1\.0\.0 failed on x float32\[3, 2\]"):
        model.predict({"x": np.zeros((3, 2), np.float32)})
    assert model.observer.close_window().errors == 1


def test_the_self_test_passes_and_fails() -> None:
    assert load(linear_bundle()).self_test().passed
    other = load(make_bundle(linear_model(seed=9), linear_schema(), golden={"x": X[:5]})).golden
    assert other is not None
    outcome = load(linear_bundle()).self_test(other)
    assert not outcome.passed
    assert outcome.max_abs_error > 0.01


@pytest.mark.parametrize(
    ("bundle", "error", "says"),
    [
        (lambda: make_bundle(b"no model", linear_schema()), ModelLoadError, "refuses the model"),
        (lambda: make_bundle(linear_model(5), linear_schema(), spec=linear_spec(9)), ModelLoadError, "column 5 of 5"),
        (lambda: make_bundle(constant_model(1), linear_schema()), ModelLoadError, "schema.json says"),
        (lambda: make_bundle(mixed_model(), mixed_schema(), spec=_numbers_of_text()), ModelLoadError, "is text"),
        (lambda: make_bundle(linear_model(), linear_schema(), spec=_spec_of("y")), ModelLoadError, "lacks"),
        (
            lambda: make_bundle(linear_model(), linear_schema(), runtime=Runtime(min_onnxruntime="99.0")),
            UnfitError,
            "needs onnxruntime 99.0",
        ),
    ],
)
def test_a_bundle_that_does_not_hold_together_is_not_loaded(bundle: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load(bundle())


def _spec_of(tensor: str) -> ProfileSpec:
    return ProfileSpec((Stream("s", "input", fit_numeric(np.arange(9)), tensor, 0),))


def _numbers_of_text() -> ProfileSpec:
    return _spec_of("city")


def test_without_a_reference_only_calls_are_counted() -> None:
    model = load(make_bundle(constant_model(2.5), constant_schema()))
    assert model.predict({"x": X[:1, :2]})["value"].tolist() == [[2.5]]
    assert model.predict({"x": X[:1, :2]})["value"].tolist() == [[2.5]]
    summary = model.observer.close_window()
    assert (summary.n, summary.profile.n, summary.profile.cells.size) == (2, 2, 0)


PHONE_HOME = """
import pathlib, sys, threading
from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.model import LoadedModel
import numpy as np
def watch(event, args):
    if event.startswith(("socket.", "urllib.", "http.")):
        print("NETWORK", event, args)
sys.addaudithook(watch)
model = LoadedModel.load(open_bundle(pathlib.Path(sys.argv[1])))
model.predict({"x": np.zeros((1, 4), np.float32)})
print("threads", len(list(pathlib.Path("/proc/self/task").iterdir())), "modules", *sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_nothing_phones_home_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "bundle", *linear_bundle())
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    environment |= {"HOME": str(home), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PHONE_HOME, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "NETWORK" not in done.stdout
    assert "threads 1 " in done.stdout
    assert list(home.rglob("*")) == []
    heavy = {
        "onnx",
        "sklearn",
        "pydantic",
        "fastapi",
        "pandas",
        "scipy",
        "cryptography",
        "tuf",
        "shoal_converter",
        "shoal_server",
    }
    assert heavy & set(done.stdout.split()) == set()


def test_numbers_near_the_largest_stay_on_the_static_binding_and_a_nan_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shoal_agent.runtime.model.is_worthwhile", lambda *_: True)
    schema = linear_schema(missing="refused")
    model = load(make_bundle(linear_model(), schema))
    rows = {"x": np.full((1, 4), 3e38, np.float32)}
    model.predict(rows)
    binding = model._thread.binding
    assert binding is not None
    assert binding.run(rows) is not None  # warnings are errors here: looking for a NaN must not overflow aloud
    assert binding.run({"x": np.array([[np.inf, -np.inf, 0.0, 1.0]], np.float32)}) is not None
    assert binding.run({"x": np.array([[0.0, np.nan, 0.0, 1.0]], np.float32)}) is None


def test_the_binding_is_held_against_all_that_a_plain_prediction_does(monkeypatch: pytest.MonkeyPatch) -> None:
    held_against: list[Any] = []
    monkeypatch.setattr("shoal_agent.runtime.model.is_worthwhile", lambda plain, *_: held_against.append(plain))
    model = load(make_bundle(linear_model(), linear_schema(missing="refused")))
    row = {"x": np.ones((1, 4), np.float32)}
    assert held_against[0](row)[1].tobytes() == model.predict(row)["probabilities"].tobytes()
    with pytest.raises(InputError, match="missing"):
        held_against[0]({"x": np.full((1, 4), np.nan, np.float32)})


@pytest.mark.parametrize("bound_ns", [900, 1100])
def test_no_single_slow_call_decides_on_the_binding(monkeypatch: pytest.MonkeyPatch, bound_ns: int) -> None:
    answer = np.ones((1, 1), np.float32)
    plain_ns = itertools.chain([0, 5_000_000], itertools.repeat(1000))  # the machine did something else meanwhile
    now_ns = [0]

    class Binding:
        def run(self, _example: Any) -> dict[str, Any]:
            now_ns[0] += bound_ns
            return {"y": answer}

    def plain(_example: Any) -> list[Any]:
        now_ns[0] += next(plain_ns)
        return [answer]

    clock = SimpleNamespace(perf_counter_ns=lambda: now_ns[0])
    monkeypatch.setattr("shoal_agent.runtime.static_binding.time", clock)
    assert is_worthwhile(plain, Binding(), {}) is (bound_ns < 1000)  # type: ignore[arg-type]


def test_an_onnxruntime_without_a_session_below_its_class_is_asked_by_the_class() -> None:
    engine = Engine(linear_model())
    row = {"x": np.ones((1, 4), np.float32)}
    layout = RowLayout((), 0)
    expected = [array.tobytes() for array in engine.run(row)]
    engine.session = SimpleNamespace(run=engine.session.run, run_with_iobinding=engine.session.run_with_iobinding,
                                     io_binding=engine.session.io_binding)  # fmt: skip
    assert engine._direct("run") is None
    engine._run_bound = engine._direct("run_with_iobinding")
    binding = StaticBinding(engine, (), layout)
    answer = binding.run(row)
    assert answer is not None
    assert [array.tobytes() for array in answer.values()] == expected


@pytest.mark.parametrize("size", [4, 5000])
def test_the_look_for_a_nan_is_silent_at_every_size(size: int) -> None:
    row = np.full(size, 3e38, np.float32)
    look = nan_screen(row)
    assert look() == look()
    assert not holds_nan(row)
    assert not holds_nan(row.reshape(2, -1).T)
    row[size // 2] = np.nan
    assert np.isnan(look())
    assert holds_nan(row)
    assert holds_nan(row.reshape(2, -1).T)
    assert not holds_nan(row[:0])
