"""What `pack` puts into a bundle, and what `Bundle.open` and `verify` refuse."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from shoal_converter import Bundle, SampleError, SourceError, pack
from shoal_converter.bundle import Bundle as BundleType
from shoal_converter.errors import OutputExistsError, SignatureError
from shoal_converter.self_test import golden
from shoal_converter.verification import verify
from shoal_protocol.bundle.layout import MODEL_ONNX, README, SCHEMA_JSON
from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.profile import summarise


def test_the_documents_say_what_the_model_is(bundle: Bundle, workshop: Any) -> None:
    assert str(bundle.ref) == "iris:1.0.0"
    assert (bundle.info.task, bundle.info.framework) == ("classification", "scikit-learn")
    assert [field.name for field in bundle.schema.inputs] == list(workshop.rows.columns)
    label, probabilities = bundle.schema.outputs
    assert label.classes == probabilities.classes == ("setosa", "versicolor", "virginica")
    assert "| petal length (cm) | float32 |" in bundle.files[README].decode()


def test_the_reference_counts_every_row_of_the_sample(bundle: Bundle) -> None:
    reference = bundle.reference
    assert reference is not None
    assert reference.profile.n == 150
    assert {stream.name for stream in reference.spec.streams} >= {"petal length (cm)", "label", "confidence"}


def test_the_rows_of_each_answer_are_counted_by_themselves_too(bundle: Bundle) -> None:
    reference = bundle.reference
    assert reference is not None
    assert reference.by_answer is not None
    by_answer = np.array(reference.by_answer)
    assert (by_answer.sum(axis=0) == reference.profile.cells).all()
    said = by_answer[:, reference.spec.slice("label")][:, 2:]
    assert (said == np.diag(np.diag(said))).all()
    assert said.sum() == 150
    label = reference.profile.cells[reference.spec.slice("label")]
    assert label.sum() == 150
    assert label[0] == label[1] == 0
    assert reference.metrics["accuracy"] > 0.95
    assert reference.metric == "accuracy"
    assert max(reference.importance, key=lambda name: reference.importance[name]).startswith("petal")


def test_golden_rows_cover_every_class_and_run_again(bundle: Bundle) -> None:
    inputs, outputs = golden(bundle)
    assert set(outputs["label"].tolist()) == {"setosa", "versicolor", "virginica"}
    assert len(next(iter(inputs.values()))) == bundle.info.golden.rows == 48
    assert all(check.ok for check in verify(bundle))


def test_a_child_version_counts_on_its_parents_grids(bundle: Bundle, workshop: Any) -> None:
    half = pack(workshop.model, sample=workshop.rows[:100], tag="iris:1.1.0", parent=bundle)
    alone = pack(workshop.model, sample=workshop.rows[:100], tag="iris:1.1.0")
    assert half.info.parent == {"digest": bundle.digest}
    assert [s.grid_hash for s in half.reference.spec.streams] == [s.grid_hash for s in bundle.reference.spec.streams]
    assert alone.reference.spec.hash != bundle.reference.spec.hash
    assert half.reference.profile.n == 100


def test_the_profile_of_the_sample_is_the_protocols_own(bundle: Bundle, workshop: Any) -> None:
    from shoal_converter.onnx_runtime import Runner
    from shoal_converter.sample import make_sample

    tensors = make_sample(workshop.rows, model=workshop.model).tensors
    found = Runner(bundle.model).run(tensors)
    assert summarise(bundle.reference.spec, {**tensors, **found}) == bundle.reference.profile


def test_statements_are_beside_the_bundle_not_in_it(bundle: Bundle, tmp_path: Path) -> None:
    assert set(bundle.statements) == {"provenance", "parity", "measurement", "sbom"}
    subject = json.loads(bundle.statements["provenance"])["subject"][0]
    assert subject == {"name": "iris:1.0.0", "digest": {"sha256": bundle.digest.partition(":")[2]}}
    without = replace(bundle, statements={})
    assert without.digest == bundle.digest
    assert set(BundleType.open(bundle.write(tmp_path / "b.tar")).statements) == {
        "provenance",
        "parity",
        "measurement",
        "sbom",
    }


def test_a_regressor_without_labels_is_a_bundle_too() -> None:
    rows, target = load_diabetes(return_X_y=True)
    packed = pack(Ridge().fit(rows, target), sample=rows, tag="diabetes:0.1")
    assert packed.info.task == "regression"
    assert packed.reference.metric == "output_agreement"
    assert packed.reference.metrics == {}
    assert [stream.name for stream in packed.reference.spec.streams][-1] == "value"


def test_a_notebook_shows_a_table_without_markup_of_the_model(workshop: Any) -> None:
    packed = pack(workshop.model, sample=workshop.rows.rename(columns=str), tag="iris:1.0.0")
    shown = packed._repr_html_()
    assert shown.startswith("<table>")
    assert packed.digest in shown
    assert repr(packed).startswith("Bundle(iris:1.0.0, sha256:")


def test_a_feature_named_like_markup_is_escaped() -> None:
    import pandas as pd

    frame = pd.DataFrame({"<script>": np.arange(20.0)})
    packed = pack(Ridge().fit(frame, frame["<script>"]), sample=frame, tag="odd:1")
    assert "<script>" not in packed._repr_html_()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tag": "Iris:1.0"}, CallerError, "is not a model name"),
        ({"tag": "iris"}, CallerError, "names no version"),
        ({"tag": "iris@champion"}, CallerError, "names no version"),
        ({"tag": "iris:v1"}, CallerError, "is not a version"),
        ({"sample": None}, SampleError, "a sample is required"),
        ({"y": [1, 2, 3]}, SampleError, "y has 3 rows, the sample has 150"),
        ({"y": np.r_[np.ones(149), np.nan]}, SampleError, "no label in 1 of 150 rows"),
        ({"y": [None] * 150}, SampleError, "no label in 150 of 150 rows"),
        ({"model": Ridge}, SourceError, "Ridge is a class"),
        ({"model": Ridge()}, SourceError, "is not fitted"),
        ({"model": {"model": 1}}, SourceError, "no scikit-learn estimator"),
        ({"sample": "train.csv"}, SampleError, "expected (rows, features)"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    workshop: Any, change: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    arguments = {"model": workshop.model, "sample": workshop.rows, "tag": "iris:1.0.0", **change}
    model = arguments.pop("model")
    with pytest.raises(error) as caught:
        pack(model, **arguments, output=tmp_path / "out")
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b")
    with pytest.raises(OutputExistsError):
        bundle.write(tmp_path / "b")
    assert bundle.write(tmp_path / "b", force=True).is_dir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError):
        bundle.write(tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_changed_byte_in_any_blob_is_found(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.write(tmp_path / "b")
    for blob in sorted((folder / "blobs" / "sha256").iterdir()):
        genuine = blob.read_bytes()
        blob.write_bytes(genuine[:-1] + bytes([genuine[-1] ^ 1]))
        with pytest.raises(SignatureError) as caught:
            Bundle.open(folder)
        assert blob.name in str(caught.value)
        blob.write_bytes(genuine)
    assert Bundle.open(folder).digest == bundle.digest


def test_a_missing_blob_is_found(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.write(tmp_path / "b")
    next(iter(sorted((folder / "blobs" / "sha256").iterdir()))).unlink()
    with pytest.raises(ContentError):
        Bundle.open(folder)


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\0" * 1024])
def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises((SourceError, ContentError)):
        Bundle.open(tmp_path / "x.tar")


def test_links_in_a_tar_are_never_followed(bundle: Bundle, tmp_path: Path) -> None:
    genuine = bundle.write(tmp_path / "b.tar").read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(genuine)) as source, tarfile.open(fileobj=out, mode="w") as target:
        for member in source:
            if member.name == "index.json":
                link = tarfile.TarInfo("index.json")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                target.addfile(link)
            else:
                target.addfile(member, source.extractfile(member))
    (tmp_path / "evil.tar").write_bytes(out.getvalue())
    with pytest.raises(ContentError) as caught:
        Bundle.open(tmp_path / "evil.tar")
    assert "has no file index.json" in str(caught.value)


def test_verify_names_what_is_wrong(bundle: Bundle) -> None:
    schema = json.loads(bundle.files[SCHEMA_JSON])
    schema["outputs"][0]["name"] = "verdict"
    swapped = {**bundle.files, SCHEMA_JSON: json.dumps(schema).encode()}
    wrong = BundleType.build(swapped, config=bundle.config, annotations={})
    found = {check.name: check for check in verify(wrong)}
    assert not found["interface"].ok
    assert "verdict" in found["interface"].detail
    assert found["digests"].ok


def test_verify_finds_a_model_that_answers_otherwise(bundle: Bundle, workshop: Any) -> None:
    labels = np.roll(workshop.labels, 50)
    from sklearn.base import clone

    other = pack(clone(workshop.model).fit(workshop.rows, labels), sample=workshop.rows, tag="iris:1.0.0")
    files = {**bundle.files, MODEL_ONNX: other.model}
    mixed = BundleType.build(files, config=bundle.config, annotations={})
    found = {check.name: check for check in verify(mixed)}
    assert not found["golden rows"].ok
    assert found["model"].ok
