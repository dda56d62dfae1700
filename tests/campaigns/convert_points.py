"""The points of `make campaign NAME=convert` for one framework: ``-m tests.campaigns.convert_points NAME POINTS SEED``.

Runs in that framework's environment and prints one line of JSON a point: the flawed converter first, then the draws.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from shoal_converter import Bundle, ConverterError, to_onnx
from shoal_converter.cli import run as shoal_convert

_NEAR = {"rtol": 1e-4, "atol": 1e-5}
Point = tuple[str, Callable[[], str]]


def main() -> int:
    """Judge the points of one framework."""
    name, points, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    draw = {"sklearn": _estimators, "boosting": _boosters, "catboost": _boosters, "mlflow": _logged}.get(
        name, _networks
    )
    with tempfile.TemporaryDirectory(prefix="campaign-convert-") as folder:
        os.chdir(folder)
        drawn = draw(name, random.Random(f"{name} {seed}"))
        for at, (case, judge) in zip(range(points + 1), drawn, strict=False):
            outcome = _judged(judge) if at else _judged_flawed(judge)
            found = {"framework": name, "case": case if at else f"flawed: {case}", "outcome": outcome}
            answers.write(json.dumps(found) + "\n")
            answers.flush()
    return 0


def _judged(judge: Callable[[], str]) -> str:
    try:
        return judge()
    except ConverterError as error:
        return f"refused: {error.message[:300]}"
    except Exception as error:  # noqa: BLE001 - a converter that breaks is what is looked for
        return f"broken: {type(error).__name__}: {str(error)[:300]}"


def _judged_flawed(judge: Callable[[], str]) -> str:
    """Judge with answers that are a thousandth off after they were proven."""
    plain = onnxruntime.InferenceSession.run

    def off(session: Any, *arguments: Any, **named: Any) -> list[Any]:
        found = plain(session, *arguments, **named)
        return [values + values.dtype.type(1e-3) if values.dtype.kind == "f" else values for values in found]

    JUDGING.run = off
    try:
        return _judged(judge)
    finally:
        JUDGING.run = plain


JUDGING = SimpleNamespace(run=onnxruntime.InferenceSession.run)
"""How the graph is asked when it is judged, not when the converter proves it; the flawed converter changes it."""


def answered(raw: bytes, rows: Any) -> dict[str, Any]:
    """Ask a graph about rows, fed as a device feeds them."""
    session = onnxruntime.InferenceSession(raw)
    given = session.get_inputs()
    feed = {}
    for at, tensor in enumerate(given):
        if isinstance(rows, pd.DataFrame):  # by position: a column that is named like an output is called otherwise
            values = rows.iloc[:, at] if len(given) == rows.shape[1] else rows[tensor.name]
        else:
            values = rows[tensor.name] if isinstance(rows, Mapping) else rows
        feed[tensor.name] = _as_fed(values, tensor)
    return dict(zip([output.name for output in session.get_outputs()], JUDGING.run(session, None, feed), strict=True))


def _as_fed(values: Any, tensor: Any) -> Any:
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    if tensor.type == "tensor(string)":
        values = pd.Series(values).astype(object)
        values = values.where(values.notna(), "__missing__").map(str).to_numpy(object)
    elif tensor.type == "tensor(bool)":
        values = np.asarray(values, dtype=bool)
    else:
        values = np.asarray(values).astype(kinds[tensor.type])
    return values.reshape(-1, 1) if values.ndim == 1 and len(tensor.shape) == 2 else values


def compared(found: Mapping[str, Any], model: Any, rows: Any) -> str:
    """Compare answers with what an estimator says itself."""
    wrong = []
    if "label" in found:
        label = np.asarray(model.predict(rows)).reshape(found["label"].shape)
        if label.dtype.kind in "fb":
            label = label.astype(int)
        wrong += ["label"] if (label.astype(str) != found["label"].astype(str)).any() else []
        if "probabilities" in found:
            wrong += [] if _near(found["probabilities"], model.predict_proba(rows)) else ["probabilities"]
    elif "value" in found:
        wrong += [] if _near(found["value"], model.predict(rows)) else ["value"]
    return f"WRONG: {', '.join(wrong)}" if wrong else "exact"


def _near(found: Any, truth: Any) -> bool:
    truth = np.asarray(truth)
    return bool(found.size == truth.size and np.allclose(found.reshape(truth.shape), truth, equal_nan=True, **_NEAR))


# --- estimators behind columns of every kind ---------------------------------------------------------------------


def _estimators(_: str, source: random.Random) -> Iterator[Point]:
    from sklearn.base import is_classifier, is_regressor
    from sklearn.utils import all_estimators
    from tests.integration.converter.estimator_sweep import SEVERAL_LABELS, SEVERAL_VALUES, TIES, made

    kinds = [
        (name, kind)
        for name, kind in all_estimators(type_filter=["classifier", "regressor"])
        if name
        not in SEVERAL_LABELS | SEVERAL_VALUES | {"IsotonicRegression", "CategoricalNB", "GaussianProcessClassifier"}
        and not any(word in name for word in TIES)
    ]
    yield "Ridge", lambda: _estimator(made("Ridge", dict(kinds)["Ridge"]), "plain", random.Random(1), "values")
    while True:
        name, kind = source.choice(kinds)
        model = made(name, kind)
        form, dice = (
            source.choice(("plain", "float32", "whole", "frame", "mixed", "mixed")),
            random.Random(source.random()),
        )
        target = source.choice(("two", "three", "texts", "flags")) if is_classifier(model) else "values"
        assert is_classifier(model) or is_regressor(model)
        yield f"{name}, {form}, {target}", lambda m=model, f=form, d=dice, t=target: _estimator(m, f, d, t)


def _estimator(model: Any, form: str, dice: random.Random, target: str) -> str:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    rng = np.random.default_rng(dice.randrange(2**31))
    rows = _mixed(rng, 320, dice) if form == "mixed" else _matrix(rng, 320, form)
    truth = _target(rng, target, rows)
    if form == "mixed":
        model = make_pipeline(_columns(rows, dice), model)
    elif dice.random() < 0.5:
        model = make_pipeline(MinMaxScaler(), model)
    seen, unseen = (rows.iloc[:200], rows.iloc[200:]) if hasattr(rows, "iloc") else (rows[:200], rows[200:])
    try:
        model.fit(seen, truth[:200])
        model.predict(unseen)
    except (ValueError, TypeError) as error:
        return f"refused: by scikit-learn itself: {str(error)[:100]}"
    return compared(answered(to_onnx(model, seen), unseen), model, unseen)


def _matrix(rng: np.random.Generator, rows: int, form: str) -> Any:
    values = np.abs(rng.normal(size=(rows, 4)) * [1, 10, 0.1, 5]) + 0.01
    if form == "frame":
        return pd.DataFrame(values, columns=["a", "b (cm)", "label", "value"])
    if form == "whole":
        return rng.integers(0, 9, (rows, 4))
    return values.astype(np.float32) if form == "float32" else values


def _mixed(rng: np.random.Generator, rows: int, dice: random.Random) -> Any:
    frame = pd.DataFrame(
        {
            "number": rng.normal(size=rows),
            "gaps": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
            "whole": rng.integers(0, 50, rows).astype(dice.choice(["int64", "int32", "float32", "uint8"])),
            "flag": rng.random(rows) < 0.5,
            "word": rng.choice(["red", "green", "dark blue", "Ünder"], rows),
            "code": rng.integers(3, 7, rows),
        }
    )
    gap = dice.choice([None, None, np.nan, pd.NA])
    frame["word"] = frame["word"].astype(dice.choice(["object", "category", "str"]))
    if dice.random() < 0.5:
        frame.loc[rng.random(rows) < 0.15, "word"] = gap
    return frame


def _columns(frame: Any, dice: random.Random) -> Any:
    from sklearn import compose, impute, pipeline, preprocessing

    scaler = dice.choice([preprocessing.StandardScaler, preprocessing.MinMaxScaler, preprocessing.RobustScaler])()
    encoder = dice.choice(
        [
            preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            preprocessing.OrdinalEncoder(
                handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
            ),
        ]
    )
    numbers = pipeline.make_pipeline(impute.SimpleImputer(strategy=dice.choice(["mean", "median"])), scaler)
    return compose.make_column_transformer(
        (numbers, ["number", "gaps", "whole"]), (encoder, ["word", "code"]), ("passthrough", ["flag"])
    )


def _target(rng: np.random.Generator, target: str, rows: Any) -> Any:
    numbers = (
        rows.select_dtypes("number").to_numpy(float) if hasattr(rows, "select_dtypes") else np.asarray(rows, float)
    )
    value = np.nan_to_num(numbers) @ np.arange(1, numbers.shape[1] + 1) + rng.normal(size=len(numbers))
    if target == "values":
        return np.abs(value) + 0.1
    three = np.digitize(value, np.quantile(value, [1 / 3, 2 / 3]))
    texts = np.array(["low", "mid", "high"])[three]
    return {"two": (three > 0).astype(int), "flags": three > 1, "three": three, "texts": texts}[target]


# --- boosting ----------------------------------------------------------------------------------------------------


def _boosters(name: str, source: random.Random) -> Iterator[Point]:
    from tests.integration.converter import boosting_sweep

    known = [case for case in boosting_sweep.cases() if (case.framework == "catboost") == (name == "catboost")]
    first = next(case for case in known if case.name in {"reg:squarederror", "RMSE"})
    yield first.name, lambda: _boosted(first, 1)
    if name == "catboost":
        yield "a .cbm, packed and run by the agent", _cbm_on_a_device
    while True:
        case, seed = source.choice(known), source.randrange(2**31)
        yield f"{case.framework} {case.name} {seed}", lambda c=case, s=seed: _boosted(c, s)


def _boosted(case: Any, seed: int) -> str:
    from tests.integration.converter.boosting_sweep import data

    known, new = data(seed), data(seed + 1)
    model = case.make(known)
    names = list(getattr(model, "feature_names_in_", getattr(model, "feature_names_", [])))
    columns = [name for name in known.frame.columns if name in names]
    seen, unseen = (known.frame[columns], new.frame[columns]) if case.mixed else (known.x, new.x)
    return compared(answered(to_onnx(model, seen), unseen), model, unseen)


def _cbm_on_a_device() -> str:
    """Pack CatBoost's own file by the command line; the agent's answers must be CatBoost's."""
    import catboost

    from shoal_agent.runtime.bundle_files import open_bundle
    from shoal_agent.runtime.model import LoadedModel

    rng = np.random.default_rng(3)
    rows = pd.DataFrame(rng.normal(size=(300, 4)).astype(np.float32), columns=list("abcd"))
    truth = np.digitize(rows["a"] + rows["b"] * rows["c"], [-0.5, 0.5])
    model = catboost.CatBoostClassifier(iterations=30, depth=4, verbose=0, allow_writing_files=False).fit(rows, truth)
    model.save_model("model.cbm")
    rows.assign(y=truth).to_csv("train.csv", index=False)
    _packed("model.cbm", "--sample", "train.csv", "--target", "y")
    loaded = LoadedModel.load(open_bundle(Path("any-1.0.0.tar")))
    if not loaded.self_test().passed:
        return "WRONG: the device's self-test fails"
    found = loaded.run({name: rows[[name]].to_numpy(np.float32) for name in rows.columns})
    return compared(found, model, rows)


def _packed(source: str, *more: str) -> Bundle:
    """Pack by the command line, in a folder of its own for each."""
    with redirect_stdout(sys.stderr):
        code = shoal_convert(["pack", source, *more, "-t", "any:1.0.0", "--force"])
    if code in {3, 4}:
        raise ConverterError(f"exit code {code}")
    assert code == 0, f"exit code {code}"
    return Bundle.open(Path("any-1.0.0.tar"))


# --- networks, and what MLflow keeps -----------------------------------------------------------------------------


def _networks(name: str, source: random.Random) -> Iterator[Point]:
    from tests.campaigns.convert_networks import networks

    return networks(name, source, answered)


def _logged(_: str, source: random.Random) -> Iterator[Point]:
    """Models that a real MLflow kept in a database and a folder, fetched by every kind of address."""
    import mlflow

    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path.cwd()}/mlflow.db"
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.create_experiment("campaign", artifact_location=(Path.cwd() / "artifacts").as_uri())
    mlflow.set_experiment("campaign")
    flavours = ("skops", "cloudpickle", "xgboost", "lightgbm")
    addresses = ("version", "alias", "latest", "run", "id")
    yield "skops by version", lambda: _fetched(mlflow, "skops", "version")
    while True:
        flavour, address = source.choice(flavours), source.choice(addresses)
        yield f"{flavour} by {address}", lambda f=flavour, a=address: _fetched(mlflow, f, a)


def _fetched(mlflow: Any, flavour: str, address: str) -> str:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    truth = (rows["a"] + rows["b"] > 0).astype(int)
    with mlflow.start_run() as run:
        model, info = _kept(mlflow, flavour, rows, truth)
    client = mlflow.MlflowClient()
    version = info.registered_model_version
    client.set_registered_model_alias(flavour, "champion", version)
    asked = {
        "version": f"models:/{flavour}/{version}",
        "alias": f"models:/{flavour}@champion",
        "latest": f"models:/{flavour}/latest",
        "run": f"runs:/{run.info.run_id}/model",
        "id": f"models:/{info.model_id}",
    }[address]
    rows.to_csv("rows.csv", index=False)
    bundle = _packed(asked, *(["--trust"] if flavour == "cloudpickle" else []), "--sample", "rows.csv")
    known = bundle.statement("provenance")["buildDefinition"]["externalParameters"]
    if known.get("mlflow_run_id") != run.info.run_id:
        return f"WRONG: the provenance names the run {known.get('mlflow_run_id')}, it was {run.info.run_id}"
    if address in {"version", "alias", "latest"} and known.get("mlflow_model_version") != str(version):
        return f"WRONG: the provenance names version {known.get('mlflow_model_version')}, it was {version}"
    raw = bundle.files["model/model.onnx"]
    return compared(answered(raw, rows), model, rows)


def _kept(mlflow: Any, flavour: str, rows: Any, truth: Any) -> tuple[Any, Any]:
    """Train, and let MLflow keep the model under its flavour's name."""
    if flavour == "xgboost":
        import mlflow.xgboost
        import xgboost

        model = xgboost.XGBClassifier(n_estimators=8).fit(rows, truth)
        return model, mlflow.xgboost.log_model(model, name="model", registered_model_name=flavour)
    if flavour == "lightgbm":
        import lightgbm
        import mlflow.lightgbm

        data = lightgbm.Dataset(rows, np.abs(rows["a"]))
        booster = lightgbm.train({"objective": "regression", "verbose": -1}, data, 8)
        return booster, mlflow.lightgbm.log_model(booster, name="model", registered_model_name=flavour)
    import mlflow.sklearn
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(8, random_state=0).fit(rows, truth)
    trusted = {"skops_trusted_types": ["sklearn.tree._tree.Tree"]} if flavour == "skops" else {}
    info = mlflow.sklearn.log_model(
        model, name="model", registered_model_name=flavour, serialization_format=flavour, **trusted
    )
    return model, info


if __name__ == "__main__":
    sys.exit(main())
