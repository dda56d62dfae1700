"""What becomes of gradient boosting models: each framework x objective x setting, converted and asked about new rows.

    python -m tests.integration.converter.boosting_sweep > docs/reference/boosting.md

Rows hold missing values, zeros, values exactly at thresholds and whole numbers. A framework that is not installed is
left out of a sweep; the page is made where all three are, and the test compares the lines of those that are there.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from shoal_converter import ParityError, UnsupportedModelError, to_onnx

FRAMEWORKS = ("xgboost", "lightgbm", "catboost")
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


@dataclass(frozen=True)
class Case:
    """One model to try.

    Attributes:
        framework: Whose it is.
        name: What is tried, for the table.
        make: From the data to a fitted model.
        mixed: Whether it is trained on a data frame with columns of categories.
    """

    framework: str
    name: str
    make: Callable[[Data], Any]
    mixed: bool = False


@dataclass(frozen=True, eq=False)
class Data:
    """Rows and targets of each kind."""

    x: Any
    frame: pd.DataFrame
    value: Any
    positive: Any
    share: Any
    two: Any
    three: Any


def data(seed: int, rows: int = 250) -> Data:
    """Return seeded rows, a tenth of their values missing, and targets that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5)).round(1)
    x[:, 3] = rng.integers(0, 5, rows)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.1] = 0.0
    frame = pd.DataFrame({"number": x[:, 0], "whole": rng.integers(0, 5, rows)})
    frame["word"] = pd.Categorical(rng.choice(["red", "green", "dark blue"], rows))
    frame["code"] = pd.Categorical(rng.integers(3, 9, rows))
    frame.loc[rng.random(rows) < 0.1, "word"] = None
    solid = np.nan_to_num(x)
    value = solid[:, 0] + solid[:, 1] * solid[:, 2] + (frame["word"] == "red") + rng.normal(size=rows) * 0.1
    value = value.to_numpy()
    cuts = np.quantile(value, [1 / 3, 2 / 3])
    share = 1 / (1 + np.exp(-value))
    return Data(x, frame, value, np.abs(value) + 0.1, share, (value > 0).astype(int), np.digitize(value, cuts))


def wrong_on(model: Any, sample: Any, rows: Any) -> str | None:
    """Convert on a sample, compare on other rows; return what differs, or none.

    Raises:
        UnsupportedModelError: It is refused.
        ParityError: It is refused.
    """
    session = onnxruntime.InferenceSession(to_onnx(model, sample))
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, _feed(session, rows)), strict=True))
    if "label" not in found:
        return None if _near(found["value"], model.predict(rows)) else "values"
    label = np.asarray(model.predict(rows)).reshape(found["label"].shape)
    kind = str if found["label"].dtype.kind == "O" else np.float64
    if not (label.astype(kind) == found["label"].astype(kind)).all():
        return "labels"
    return None if _near(found["probabilities"], model.predict_proba(rows)) else "probabilities"


def _near(found: Any, truth: Any) -> bool:
    truth = np.asarray(truth)
    return bool(np.allclose(found.reshape(truth.shape), truth, rtol=1e-4, atol=1e-5, equal_nan=True))


def _feed(session: Any, rows: Any) -> dict[str, Any]:
    feed = {}
    for tensor in session.get_inputs():
        values = rows[tensor.name] if isinstance(rows, pd.DataFrame) else rows
        if tensor.type == "tensor(string)":
            values = values.astype(object).where(values.notna(), "__missing__").to_numpy()
        else:
            values = np.asarray(values).astype(_TYPES[tensor.type])
        feed[tensor.name] = values.reshape(-1, 1) if values.ndim == 1 else values
    return feed


def cases() -> Iterator[Case]:
    """Yield what is tried, of the frameworks that are installed."""
    for framework, listed in (("xgboost", _xgboost), ("lightgbm", _lightgbm), ("catboost", _catboost)):
        if importlib.util.find_spec(framework) is not None:
            for name, make, mixed in listed():
                yield Case(framework, name, make, mixed)


Listed = Iterator[tuple[str, Callable[[Data], Any], bool]]


def _xgboost() -> Listed:
    import xgboost as xgb

    size = {"n_estimators": 12, "max_depth": 4}
    targets: dict[str, Callable[[Data], Any]] = {
        "reg:logistic": lambda d: d.share,
        "count:poisson": lambda d: np.round(d.positive),
    }
    for objective in (
        *("reg:squarederror", "reg:squaredlogerror", "reg:logistic", "reg:pseudohubererror", "reg:absoluteerror"),
        *("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox"),
    ):
        target = targets.get(objective, lambda d: d.positive)
        yield objective, lambda d, o=objective, t=target: xgb.XGBRegressor(objective=o, **size).fit(d.x, t(d)), False
    yield (
        "reg:quantileerror, three quantiles",
        lambda d: xgb.XGBRegressor(objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9], **size).fit(
            d.x, d.value
        ),
        False,
    )
    for booster in ("gbtree", "dart", "gblinear"):
        more = {"rate_drop": 0.3} if booster == "dart" else {}
        more |= {"n_estimators": 12} if booster == "gblinear" else size
        yield (
            f"{booster}, two classes",
            lambda d, m=more, b=booster: xgb.XGBClassifier(booster=b, **m).fit(d.x, d.two),
            False,
        )
        yield (
            f"{booster}, three classes",
            lambda d, m=more, b=booster: xgb.XGBClassifier(booster=b, **m).fit(d.x, d.three),
            False,
        )
        yield (
            f"{booster}, two values",
            lambda d, m=more, b=booster: xgb.XGBRegressor(booster=b, **m).fit(d.x, np.c_[d.value, 9 * d.positive]),
            False,
        )
    for objective in ("binary:hinge", "binary:logitraw"):
        yield objective, lambda d, o=objective: xgb.XGBClassifier(objective=o, **size).fit(d.x, d.two), False
    yield (
        "several labels a row",
        lambda d: xgb.XGBClassifier(**size).fit(d.x, np.c_[d.two, d.three > 0].astype(int)),
        False,
    )
    yield (
        "multi_output_tree",
        lambda d: xgb.XGBRegressor(multi_strategy="multi_output_tree", **size).fit(d.x, np.c_[d.value, d.share]),
        False,
    )
    yield "XGBRFClassifier", lambda d: xgb.XGBRFClassifier(n_estimators=8).fit(d.x, d.three), False
    yield "XGBRFRegressor", lambda d: xgb.XGBRFRegressor(n_estimators=8).fit(d.x, d.value), False
    yield "XGBRanker", lambda d: xgb.XGBRanker(**size).fit(d.x, d.three, group=[len(d.x)]), False
    yield "early stopping", _stopped, False
    yield "missing=0", lambda d: xgb.XGBClassifier(missing=0, **size).fit(d.x, d.two), False
    yield "base_score=1000", lambda d: xgb.XGBRegressor(base_score=1000, **size).fit(d.x, d.value), False
    yield "named columns", lambda d: xgb.XGBClassifier(**size).fit(d.frame[["number", "whole"]], d.two), True
    for most in (1, 99):
        yield (
            f"categories, max_cat_to_onehot={most}",
            lambda d, m=most: xgb.XGBClassifier(enable_categorical=True, max_cat_to_onehot=m, **size).fit(
                d.frame, d.two
            ),
            True,
        )


def _stopped(d: Data) -> Any:
    import xgboost as xgb

    model = xgb.XGBClassifier(n_estimators=99, early_stopping_rounds=3, learning_rate=0.5)
    return model.fit(d.x, d.two, eval_set=[(d.x, np.roll(d.two, 7))], verbose=False)


def _lightgbm() -> Listed:
    import lightgbm as lgb

    size = {"n_estimators": 12, "num_leaves": 9, "verbose": -1}
    targets: dict[str, Callable[[Data], Any]] = {
        "cross_entropy": lambda d: d.share,
        "cross_entropy_lambda": lambda d: d.share,
    }
    for objective in (
        *("regression", "regression_l1", "huber", "fair", "quantile", "mape", "poisson", "gamma", "tweedie"),
        *("cross_entropy", "cross_entropy_lambda"),
    ):
        target = targets.get(objective, lambda d: d.positive)
        yield objective, lambda d, o=objective, t=target: lgb.LGBMRegressor(objective=o, **size).fit(d.x, t(d)), False
    yield "reg_sqrt", lambda d: lgb.LGBMRegressor(reg_sqrt=True, **size).fit(d.x, d.value), False
    for kind in ("gbdt", "dart", "rf"):
        more: dict[str, Any] = {"boosting_type": kind, **size}
        more |= {"subsample": 0.5, "subsample_freq": 1} if kind == "rf" else {}
        yield f"{kind}, values", lambda d, m=more: lgb.LGBMRegressor(**m).fit(d.x, d.value), False
        yield f"{kind}, two classes", lambda d, m=more: lgb.LGBMClassifier(**m).fit(d.x, d.two), False
        yield (
            f"{kind}, text classes",
            lambda d, m=more: lgb.LGBMClassifier(**m).fit(d.x, np.array(list("abc"))[d.three]),
            False,
        )
    yield (
        "multiclassova, sigmoid=2",
        lambda d: lgb.LGBMClassifier(objective="multiclassova", sigmoid=2.0, **size).fit(d.x, d.three),
        False,
    )
    yield "zero_as_missing", lambda d: lgb.LGBMClassifier(zero_as_missing=True, **size).fit(d.x, d.two), False
    yield "use_missing=False", lambda d: lgb.LGBMClassifier(use_missing=False, **size).fit(d.x, d.two), False
    yield "LGBMRanker", lambda d: lgb.LGBMRanker(**size).fit(d.x, d.three, group=[len(d.x)]), False
    yield (
        "categorical_feature=[3]",
        lambda d: lgb.LGBMClassifier(categorical_feature=[3], min_data_per_group=5, **size).fit(
            np.nan_to_num(d.x, nan=-1), d.two
        ),
        False,
    )
    yield (
        "categories",
        lambda d: lgb.LGBMClassifier(min_data_per_group=5, cat_smooth=1, **size).fit(d.frame, d.two),
        True,
    )
    yield "linear_tree", lambda d: lgb.LGBMRegressor(linear_tree=True, **size).fit(d.x, d.value), False


def _catboost() -> Listed:
    import catboost as cb

    size = {"iterations": 12, "depth": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    for loss in (
        *("RMSE", "MAE", "Quantile:alpha=0.3", "MultiQuantile:alpha=0.1,0.9", "Expectile:alpha=0.3", "Huber:delta=1"),
        *("LogCosh", "MAPE", "Lq:q=2", "Poisson", "Tweedie:variance_power=1.5", "RMSEWithUncertainty"),
    ):
        yield loss, lambda d, o=loss: cb.CatBoostRegressor(loss_function=o, **size).fit(d.x, d.positive), False
    yield (
        "MultiRMSE",
        lambda d: cb.CatBoostRegressor(loss_function="MultiRMSE", **size).fit(d.x, np.c_[d.value, d.share]),
        False,
    )
    yield "Logloss", lambda d: cb.CatBoostClassifier(**size).fit(d.x, d.two), False
    yield (
        "MultiClass, text classes",
        lambda d: cb.CatBoostClassifier(**size).fit(d.x, np.array(list("abc"))[d.three]),
        False,
    )
    yield (
        "MultiClassOneVsAll",
        lambda d: cb.CatBoostClassifier(loss_function="MultiClassOneVsAll", **size).fit(d.x, d.three),
        False,
    )
    yield (
        "MultiLogloss",
        lambda d: cb.CatBoostClassifier(loss_function="MultiLogloss", **size).fit(
            d.x, np.c_[d.two, d.three > 0].astype(int)
        ),
        False,
    )
    yield "nan_mode=Max", lambda d: cb.CatBoostClassifier(nan_mode="Max", **size).fit(d.x, d.two), False
    yield "a probability threshold", _with_threshold, False
    for policy in ("Depthwise", "Lossguide"):
        yield (
            f"grow_policy={policy}",
            lambda d, g=policy: cb.CatBoostClassifier(grow_policy=g, **size).fit(d.x, d.three),
            False,
        )
    yield (
        "CatBoostRanker",
        lambda d: cb.CatBoostRanker(**size).fit(d.x, d.three, group_id=np.zeros(len(d.x), int)),
        False,
    )
    yield (
        "cat_features",
        lambda d: cb.CatBoostClassifier(cat_features=["code"], **size).fit(
            d.frame[["number", "code"]].astype({"code": int}), d.two
        ),
        True,
    )


def _with_threshold(d: Data) -> Any:
    import catboost as cb

    model = cb.CatBoostClassifier(iterations=12, depth=3, verbose=0, allow_writing_files=False).fit(d.x, d.two)
    model.set_probability_threshold(0.3)
    return model


def outcome(case: Case, seed: int = 1) -> str:
    """Return ``exact``, ``WRONG: …`` or ``refused: …`` for one case."""
    known, new = data(seed), data(seed + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.make(known)
        names = list(getattr(model, "feature_names_in_", getattr(model, "feature_names_", [])))
        columns = [name for name in known.frame.columns if name in names]
        sample, rows = (known.frame[columns], new.frame[columns]) if case.mixed else (known.x, new.x)
        try:
            wrong = wrong_on(model, sample, rows)
        except UnsupportedModelError as refusal:
            return f"refused: {refusal.why}; {refusal.way_round}"
        except ParityError as refusal:
            return f"refused: {refusal.message}"
    return "exact" if wrong is None else f"WRONG: {wrong}"


def line(case: Case, found: str) -> str:
    """Return a case's line in the table."""
    return f"| {case.framework} | {case.name} | {found} |"


def page() -> str:
    """Return the whole page."""
    lines = [line(case, outcome(case)) for case in cases()]
    return _HEAD + "\n".join(lines) + "\n"


_HEAD = """# Gradient boosting

What becomes of models of XGBoost, LightGBM and CatBoost in `shoal-convert`. **exact**: labels equal and numbers within
rtol 1e-4 and atol 1e-5 of the source's, on rows that the converter never saw, some values missing. Refused: exit
code 4 or 3, never a wrong model. Parity is checked again on the sample of every pack.

The trees are read from the framework's own dump and written as one TreeEnsembleRegressor (ai.onnx.ml 3), the link as
ordinary nodes. XGBoost's are compared and summed in float32, in its order, the others in double. LightGBM
compares the doubles that it is given, so where float32 rounds your sample the model takes float64 inputs.

A category that training never saw counts as missing, as in a pandas column of the training's categories. XGBoost 3.2
itself refuses a new one, or takes it for another category.

Made by `tests/integration/converter/boosting_sweep.py`; a test repeats the sweep and says when it is stale.

| framework | model | what holds |
|---|---|---|
"""


if __name__ == "__main__":
    print(page(), end="")
