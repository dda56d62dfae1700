"""`shoal-convert` as a user types it: results, exit codes, and what it says to the likeliest mistakes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import SplineTransformer

from shoal_converter import Bundle


def good(workshop: Any, **changes: object) -> list[object]:
    """Return the arguments of a pack that works, with changes; None takes an option away."""
    options: dict[str, object] = {"sample": workshop.file("train.csv"), "target": "species", "tag": "iris:1.0.0"}
    source = changes.pop("source", workshop.file("model.joblib"))
    arguments: list[object] = ["pack", source, "--trust"]
    for name, value in {**options, **changes}.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", value]
    return arguments


def test_pack_inspect_verify_predict_unpack_diff(
    shoal_convert: Any, workshop: Any, bundle: Bundle, tmp_path: Path
) -> None:
    code, out, err = shoal_convert(*good(workshop), "--json")
    answer = json.loads(out)
    assert code == 0, err
    assert {"ref", "digest", "path", "parity", "refused", "metrics", "segments", "sources", "measured"} <= set(answer)
    assert (answer["ref"], answer["path"], answer["refused"]) == ("iris:1.0.0", "iris-1.0.0.tar", [])
    assert answer["parity"]["label_flips"] == 0
    assert answer["digest"] == bundle.digest, "a pickle, packed in a child from a CSV, is the same bundle"
    assert "in a child process" in err

    code, out, _ = shoal_convert("inspect", "iris-1.0.0.tar", "--json")
    assert code == 0
    assert json.loads(out)["bundle"]["task"] == "classification"
    code, out, _ = shoal_convert("verify", "iris-1.0.0.tar")
    assert (code, out.count(" ok ")) == (0, 8)

    code, out, _ = shoal_convert("predict", "iris-1.0.0.tar", "--input", workshop.file("train.csv"))
    lines = out.splitlines()
    assert lines[0].startswith("label,probabilities.setosa")
    assert [line.split(",")[0] for line in lines[1:]] == workshop.model.predict(workshop.rows).tolist()

    code, out, _ = shoal_convert("unpack", "iris-1.0.0.tar", "-o", "files")
    assert (tmp_path / "files" / "model" / "model.onnx").read_bytes() == bundle.model
    assert len(out.splitlines()) == len(bundle.files) + 2

    assert shoal_convert(*good(workshop, tag="iris:1.1.0", parent="iris-1.0.0.tar"))[0] == 0
    code, out, _ = shoal_convert("diff", "iris-1.0.0.tar", "iris-1.1.0.tar", "--json")
    assert {d["what"] for d in json.loads(out)["differences"]} >= {"version", "file bundle.json"}
    assert shoal_convert("diff", "iris-1.0.0.tar", "iris-1.0.0.tar")[1] == "the same bundle\n"


def test_a_tar_and_a_folder_are_the_same_bundle(shoal_convert: Any, workshop: Any, tmp_path: Path) -> None:
    assert shoal_convert(*good(workshop, output="iris"))[0] == 0
    assert shoal_convert(*good(workshop, output="iris.tar"))[0] == 0
    assert (tmp_path / "iris" / "oci-layout").is_file()
    assert Bundle.open(tmp_path / "iris").digest == Bundle.open(tmp_path / "iris.tar").digest


def test_npz_and_csv_agree_on_the_model(shoal_convert: Any, workshop: Any, tmp_path: Path) -> None:
    assert shoal_convert(*good(workshop, output="a.tar"))[0] == 0
    assert shoal_convert(*good(workshop, sample=workshop.file("train.npz"), target=None, output="b.tar"))[0] == 0
    a, b = Bundle.open(tmp_path / "a.tar"), Bundle.open(tmp_path / "b.tar")
    assert [tensor.name for tensor in b.schema.tensors] == ["x"]
    assert [field.name for field in a.schema.inputs] == [field.name for field in b.schema.inputs]
    assert a.reference is not None
    assert b.reference is not None
    assert a.reference.metrics == b.reference.metrics


def dumped(folder: Path, model: Any) -> Path:
    joblib.dump(model, folder / "other.joblib")
    return folder / "other.joblib"


def test_twenty_mistakes_are_told_with_their_cure(shoal_convert: Any, workshop: Any, tmp_path: Path) -> None:
    frame = workshop.rows.assign(species=workshop.labels)
    gap = frame.copy()
    gap.loc[3, "species"] = None
    gap.to_csv(tmp_path / "gap.csv", index=False)
    (tmp_path / "broken.pkl").write_bytes(b"\x80\x04not a pickle")
    (tmp_path / "there.tar").write_bytes(b"mine")
    spline = SplineTransformer(extrapolation="periodic").fit(workshop.rows)
    mistakes: list[tuple[list[object], int, str]] = [
        ([a for a in good(workshop) if a != "--trust"], 2, "add --trust"),
        (good(workshop, sample=None), 2, "a sample is required"),
        (good(workshop, tag=None), 2, "Missing option '-t'"),
        (good(workshop, tag="Iris:1"), 2, "is not a model name"),
        (good(workshop, tag="iris"), 2, "names no version"),
        (good(workshop, tag="iris:1+cpu"), 2, "is not a version"),
        (good(workshop, sample="nowhere.csv"), 2, "there is no sample file"),
        (good(workshop, source="nowhere.joblib"), 2, "there is no model file"),
        (good(workshop, source=workshop.file("train.csv")), 2, "is of no known kind"),
        (good(workshop, target=None), 2, "--target species"),
        (good(workshop, sample="gap.csv"), 2, "y has no label in 1 of 150 rows"),
        (good(workshop, sample=tmp_path / "broken.pkl"), 2, "is of no known kind"),
        (good(workshop, source="broken.pkl"), 2, "can't be loaded"),
        (good(workshop, source=dumped(tmp_path, Ridge())), 2, "is not fitted"),
        (good(workshop, output="there.tar"), 2, "--force"),
        (good(workshop, max_label_flips="lots"), 2, "is no share"),
        (good(workshop, meta="run"), 2, "is no KEY=VALUE"),
        (good(workshop, parent="nowhere.tar"), 2, "there is nothing at"),
        (["verify", "nowhere.tar"], 2, ". has there.tar"),
        (["inspect", workshop.file("train.csv")], 2, "becomes one by shoal-convert pack"),
        (["push", "iris:1.0.0"], 2, "fetch it first: shoal-convert pull iris:1.0.0"),
        (["check", "there:1"], 2, "is a reference, and a file is wanted here"),
        (["pull", "there:1.0", "-o", "there.tar", "--url", "http://127.0.0.1:9"], 2, "--force"),
        (["pull", "iris", "--url", "http://127.0.0.1:9"], 2, "names no version"),
        (["pull", "iris:1.0", "--url", "ftp://here"], 2, "is no URL of a registry"),
    ]
    for arguments, expected, says in mistakes:
        code, out, err = shoal_convert(*arguments)
        assert code == expected, (arguments, err)
        assert says in " ".join(err.split()), (arguments, err)
        assert "Traceback" not in err + out, err
    assert (tmp_path / "there.tar").read_bytes() == b"mine"
    joblib.dump(spline, tmp_path / "spline.joblib")
    code, out, _ = shoal_convert(*good(workshop, source="spline.joblib"), "--json")
    answer = json.loads(out)
    assert (code, answer["digest"]) == (4, None)
    assert answer["refused"][0]["step"] == "SplineTransformer"
    assert answer["refused"][0]["way_round"]


def test_a_parity_breach_is_exit_code_3_and_passes_when_allowed(shoal_convert: Any, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 50).reshape(-1, 1)
    model = LinearRegression().fit(x, 3 * x[:, 0] + 1e4)
    np.savez(tmp_path / "rows.npz", X=x)
    joblib.dump(model, tmp_path / "m.joblib")
    strict = ["pack", "m.joblib", "--trust", "--sample", "rows.npz", "-t", "line:1", "--rtol", 1e-12, "--atol", 1e-12]
    code, out, err = shoal_convert(*strict, "--json")
    answer = json.loads(out)
    assert code == 3
    assert answer["parity"]["step"] == "LinearRegression"
    assert answer["digest"] is None
    assert "--rtol" in err
    assert not (tmp_path / "line-1.tar").exists()
    assert shoal_convert("pack", "m.joblib", "--trust", "--sample", "rows.npz", "-t", "line:1")[0] == 0


class Dies:
    """A pickle that ends its process."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("__import__('os')._exit(7)",)


def test_a_pickle_that_kills_its_process_is_an_error_not_a_crash(
    shoal_convert: Any, workshop: Any, tmp_path: Path
) -> None:
    (tmp_path / "dies.pkl").write_bytes(pickle.dumps(Dies()))
    code, _, err = shoal_convert(*good(workshop, source="dies.pkl"))
    assert code == 1
    assert "died (exit code 7)" in err


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from shoal_converter.cli import run; run(['--help']);"
        "heavy = {'sklearn', 'onnx', 'onnxruntime', 'skl2onnx', 'numpy', 'pandas', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Turn trained models" in done.stdout
