"""Networks of PyTorch and Keras that the campaign `convert` draws: as objects, and as files by the command line."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from shoal_converter import Bundle, ConverterError, to_onnx
from shoal_converter.cli import run as shoal_convert

Point = tuple[str, Callable[[], str]]
Ask = Callable[[bytes, Any], dict[str, Any]]
_FORMS = {
    "torch": ("object", "file", "file", "mlflow pickle", "mlflow pt2"),
    "keras": ("object", "file", "folder", "mlflow keras", "mlflow tensorflow"),
}
"""How a network reaches the converter; what MLflow writes is written by MLflow itself."""
_NEAR = {"rtol": 1e-4, "atol": 1e-5}
_SEEN = 40


def networks(framework: str, source: random.Random, ask: Ask) -> Iterator[Point]:
    """Yield points without end; the first is an ordinary network."""
    shelf = _torch() if framework == "torch" else _keras()
    kinds = list(shelf)
    for at in range(10**6):
        name = kinds[0] if not at else source.choice(kinds)
        form = "object" if not at else source.choice(_FORMS[framework])
        seed = source.randrange(2**31)
        yield f"{name}, {form}, {seed}", lambda n=name, f=form, s=seed: _judge(framework, shelf[n], f, s, ask)


def _judge(
    framework: str, make: Callable[[np.random.Generator], tuple[Any, Any]], form: str, seed: int, ask: Ask
) -> str:
    rng = np.random.default_rng(seed)
    if framework == "torch":
        import torch

        torch.manual_seed(seed)
    else:
        import keras

        keras.utils.set_random_seed(seed)
    network, rows = make(rng)
    seen = {k: v[:_SEEN] for k, v in rows.items()} if isinstance(rows, Mapping) else rows[:_SEEN]
    unseen = {k: v[_SEEN:] for k, v in rows.items()} if isinstance(rows, Mapping) else rows[_SEEN:]
    raw = to_onnx(network, seen) if form == "object" else _by_file(framework, network, seen, form)
    found = list(ask(raw, unseen).values())
    truth = _torch_says(network, unseen) if framework == "torch" else _keras_says(network, unseen)
    if sorted(map(np.shape, found)) != sorted(map(np.shape, truth)):
        return f"WRONG: shapes {[each.shape for each in found]}, expected {[each.shape for each in truth]}"
    near = all(any(f.shape == t.shape and np.allclose(f, t, **_NEAR) for t in truth) for f in found)
    return "exact" if near else "WRONG: values"


def _by_file(framework: str, network: Any, seen: Any, form: str) -> bytes:
    np.savez("rows.npz", **(seen if isinstance(seen, Mapping) else {"X": seen}))
    if form.startswith("mlflow"):
        source, trust = "logged", ["--trust"] if framework == "torch" else []
        _log(network, seen, form.partition(" ")[2])
    elif framework == "torch":
        import torch

        rows = torch.export.Dim("rows")
        given = {k: torch.from_numpy(v[:4]) for k, v in seen.items()} if isinstance(seen, Mapping) else {}
        alone = () if given else (torch.from_numpy(seen[:4]),)
        shapes = {k: {0: rows} for k in given} if given else ({0: rows},)
        try:
            program = torch.export.export(network.eval(), alone, given, dynamic_shapes=shapes)
        except Exception as error:
            raise ConverterError(f"by torch.export itself: {str(error).splitlines()[0]}") from error
        torch.export.save(program, "net.pt2")
        source, trust = "net.pt2", ["--trust"]
    elif form == "file":
        network.save("net.keras")
        source, trust = "net.keras", []
    else:
        network.export("net_saved", verbose=False)
        source, trust = "net_saved", ["--trust"]
    with redirect_stdout(sys.stderr):
        code = shoal_convert(["pack", source, *trust, "--sample", "rows.npz", "-t", "any:1.0.0", "--force"])
    if code in {3, 4}:
        raise ConverterError(f"exit code {code}")
    assert code == 0, f"exit code {code}"
    return Bundle.open(Path("any-1.0.0.tar")).files["model/model.onnx"]


def _log(network: Any, seen: Any, flavour: str) -> None:
    """Let MLflow save a network in the folder ``logged``."""
    import importlib

    shutil.rmtree("logged", ignore_errors=True)
    if flavour in {"keras", "tensorflow"}:
        importlib.import_module(f"mlflow.{flavour}").save_model(network, "logged")
        return
    import mlflow.pytorch

    few = tuple(values[:4] for values in seen.values()) if isinstance(seen, Mapping) else seen[:4]
    example = {"input_example": few} if flavour == "pt2" else {}
    try:
        mlflow.pytorch.save_model(network.eval(), "logged", serialization_format=flavour, **example)
    except Exception as error:
        if flavour == "pickle":
            raise
        raise ConverterError(f"by MLflow itself: {str(error).splitlines()[0]}") from error


def _torch_says(network: Any, rows: Any) -> list[Any]:
    import torch

    with torch.no_grad():
        network.eval()
        named = isinstance(rows, Mapping)
        given = {k: torch.from_numpy(v) for k, v in rows.items()} if named else {}
        found = network(**given) if named else network(torch.from_numpy(rows))
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def _keras_says(network: Any, rows: Any) -> list[Any]:
    import keras

    given = [rows[tensor.name] for tensor in network.inputs] if isinstance(rows, Mapping) else rows
    return [np.asarray(each) for each in keras.tree.flatten(network(given, training=False))]


def _floats(*shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda rng: rng.normal(size=(60, *shape)).astype(np.float32)


def _two(rng: np.random.Generator) -> dict[str, Any]:
    return {"values": rng.normal(size=(60, 3)).astype(np.float32), "code": rng.integers(0, 5, 60)}


def _torch() -> dict[str, Callable[[np.random.Generator], tuple[Any, Any]]]:
    import torch
    from torch import nn

    class Two(nn.Module):  # type: ignore[misc]  # no types where PyTorch isn't
        def __init__(self) -> None:
            super().__init__()
            self.codes, self.last = nn.Embedding(5, 3), nn.Linear(3, 2)

        def forward(self, values: Any, code: Any) -> Any:
            mixed = self.last(values + self.codes(code))
            return torch.softmax(mixed, -1), mixed.sum(-1, keepdim=True)

    class Last(nn.Module):  # type: ignore[misc]
        def __init__(self, recurrent: Any) -> None:
            super().__init__()
            self.recurrent, self.head = recurrent, nn.Linear(6, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.recurrent(x)[0][:, -1])

    class Branch(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    dense = lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(), nn.Linear(8, 3))  # noqa: E731
    image = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
    )
    attention = lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)  # noqa: E731
    made: dict[str, tuple[Callable[[], Any], Callable[[np.random.Generator], Any]]] = {
        "dense": (dense, _floats(4)),
        "image": (image, _floats(3, 8, 8)),
        "two inputs": (Two, _two),
        "lstm": (lambda: Last(nn.LSTM(3, 6, batch_first=True)), _floats(7, 3)),
        "gru": (lambda: Last(nn.GRU(3, 6, batch_first=True)), _floats(7, 3)),
        "attention": (attention, _floats(5, 6)),
        "branch": (Branch, _floats(4)),
    }
    return {name: lambda rng, m=network, r=rows: (m(), r(rng)) for name, (network, rows) in made.items()}


def _keras() -> dict[str, Callable[[np.random.Generator], tuple[Any, Any]]]:
    import keras

    layers = keras.layers

    def normalised(rng: np.random.Generator) -> Any:
        first = layers.Normalization()
        first.adapt(rng.normal(3, 2, (50, 4)).astype(np.float32))
        head = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3, "softmax")]
        return keras.Sequential([keras.Input((4,)), first, *head])

    def two(_: np.random.Generator) -> Any:
        values, code = keras.Input((3,), name="values"), keras.Input((), dtype="int64", name="code")
        mixed = layers.Add()([values, layers.Embedding(5, 3)(code)])
        return keras.Model([values, code], [layers.Dense(1)(mixed), layers.Dense(2, "softmax")(values)])

    def attention(_: np.random.Generator) -> Any:
        given = keras.Input((5, 6))
        mixed = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(given, given))
        return keras.Model(given, layers.Dense(1)(layers.GlobalAveragePooling1D()(mixed)))

    def stack(shape: tuple[int, ...], *of: Callable[[], Any]) -> Callable[[np.random.Generator], Any]:
        return lambda _: keras.Sequential([keras.Input(shape), *(layer() for layer in of)])

    image = stack(
        (8, 8, 3),
        lambda: layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D,
        lambda: layers.SeparableConv2D(4, 2),
        layers.GlobalAveragePooling2D,
        lambda: layers.Dense(3, "softmax"),
    )
    recurrent = stack(
        (7, 3), lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)), lambda: layers.GRU(3)
    )
    made = {
        "normalised": (normalised, _floats(4)),
        "image": (image, _floats(8, 8, 3)),
        "two inputs": (two, _two),
        "recurrent": (recurrent, _floats(7, 3)),
        "attention": (attention, _floats(5, 6)),
    }
    return {name: lambda rng, m=network, r=rows: (m(rng), r(rng)) for name, (network, rows) in made.items()}
