"""Files of skops pack without trust; types that nobody knows are named, with the option that trusts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io as skops
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from tests.integration.converter.conftest import Workshop

from shoal_converter import Bundle
from shoal_converter.errors import SourceError, UntrustedTypesError
from shoal_converter.sources.skops_file import load_skops


class Ours(StandardScaler):
    """A step that skops has never heard of."""


def test_it_packs_to_the_same_bundle_as_the_pickle(shoal_convert: Any, workshop: Workshop, tmp_path: Path) -> None:
    skops.dump(workshop.model, tmp_path / "model.skops")
    rest = ("--sample", workshop.file("train.csv"), "--target", "species", "-t", "iris:1.0.0")
    code, _, err = shoal_convert("pack", "model.skops", *rest, "-o", "a.tar")
    assert code == 0, err
    shoal_convert("pack", workshop.file("model.joblib"), "--trust", *rest, "-o", "b.tar")
    assert Bundle.open(tmp_path / "a.tar").digest == Bundle.open(tmp_path / "b.tar").digest


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
        MLPClassifier(4, max_iter=2),
        GaussianProcessClassifier(2.0 * RBF()),
        make_pipeline(SplineTransformer(), RandomForestClassifier(2)),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_scikit_learn_is_made_of_needs_no_trust(model: Any, workshop: Workshop, tmp_path: Path) -> None:
    rows, labels = workshop.rows.to_numpy(), workshop.labels
    skops.dump(model.fit(rows, labels), tmp_path / "m.skops")
    assert np.array_equal(load_skops(tmp_path / "m.skops").predict(rows), model.predict(rows))


def test_an_unknown_type_is_named_with_the_option_that_trusts_it(
    shoal_convert: Any, workshop: Workshop, tmp_path: Path
) -> None:
    skops.dump(Ours().fit(workshop.rows), tmp_path / "ours.skops")
    name = f"{Ours.__module__}.Ours"
    with pytest.raises(UntrustedTypesError) as refused:
        load_skops(tmp_path / "ours.skops")
    assert refused.value.types == (name,)
    assert f"--trust-type {name}" in refused.value.hint
    assert isinstance(load_skops(tmp_path / "ours.skops", trusted=[name]), Ours)
    code, out, err = shoal_convert(
        "pack", "ours.skops", "--sample", workshop.file("rows.npy"), "-t", "iris:1.0.0", "--json"
    )
    assert code == 2
    assert name in json.loads(out)["error"]["message"]
    assert f"--trust-type {name}" in err


def test_a_forged_file_gets_nothing_run(tmp_path: Path) -> None:
    """Of `os.system` as a function to call, as a hostile file would have it."""
    schema = {
        "__class__": "partial",
        "__module__": "functools",
        "__loader__": "PartialNode",
        "content": {
            "func": {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": {}},
            "args": {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": []},
            "kwds": {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}},
            "namespace": {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}},
        },
        "protocol": 2,
        "_skops_version": "0.16.0",
    }
    with ZipFile(tmp_path / "evil.skops", "w") as made:
        made.writestr("schema.json", json.dumps(schema))
    with pytest.raises((UntrustedTypesError, SourceError)):
        load_skops(tmp_path / "evil.skops")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_such_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.skops").write_bytes(content)
    with pytest.raises(SourceError, match="is no file of skops"):
        load_skops(tmp_path / "bad.skops")
