"""What a file holds is told by its name and, of PyTorch, its archive; what holds no whole model says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from tests.integration.converter.conftest import Workshop

from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import LibraryMissingError, NotIsolatedError, SourceError, UntrustedPickleError
from shoal_converter.sources import isolated_child
from shoal_converter.sources.isolated import PackRequest
from shoal_converter.sources.model_file import check_trusted, kind_of, load_model
from shoal_converter.sources.sample_file import SUFFIXES as SAMPLES


def archive(path: Path, *names: str) -> Path:
    with ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, b"")
    return path


def test_a_state_dict_says_that_the_network_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds weights, not the network") as refused:
        kind_of(archive(tmp_path / "model.pt", "model/data.pkl", "model/data/0"))
    assert "load_state_dict" in refused.value.hint
    assert "torch.export.save" in refused.value.hint


@pytest.mark.parametrize(
    ("module", "name", "whole"),
    [
        ("torch.nn.modules.linear", "Linear", True),
        ("cloudpickle.cloudpickle", "_make_skeleton_class", True),
        ("collections", "OrderedDict", False),
        ("torch._utils", "_rebuild_tensor_v2", False),
    ],
)
def test_a_pickled_network_is_told_from_weights_without_loading_it(
    tmp_path: Path, module: str, name: str, *, whole: bool
) -> None:
    path = tmp_path / "model.pth"
    with ZipFile(path, "w") as made:
        made.writestr("model/data.pkl", f"\x80\x02c{module}\n{name}\n.".encode("latin-1"))
    if not whole:
        with pytest.raises(SourceError, match="weights"):
            kind_of(path)
        return
    assert kind_of(path).what == "a pickled network of PyTorch"
    with pytest.raises(UntrustedPickleError, match="runs whatever code"):
        check_trusted(path, trust=None)


def test_torchscript_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is TorchScript") as refused:
        kind_of(archive(tmp_path / "model.pt", "model/data.pkl", "model/code/__torch__.py"))
    assert "torch.export.save" in refused.value.hint


@pytest.mark.parametrize("content", [b"", b"\x80\x02an old pickle"])
def test_a_checkpoint_of_an_old_pytorch_is_one_too(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(SourceError, match="checkpoint"):
        kind_of(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.safetensors", "weights only"),
        ("a.tflite", "TensorFlow Lite"),
        ("saved_model.pb", "give the folder"),
        ("train.py", "pack(model, sample=X"),
        ("train.ipynb", "pack(model, sample=X"),
        ("a.xyz", ".joblib, .pkl"),
    ],
)
def test_other_files_say_what_to_do(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError) as refused:
        kind_of(tmp_path / name)
    assert told in f"{refused.value.message} {refused.value.hint}"


def test_a_folder_without_a_model_says_which_folders_are_known(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="without a model") as refused:
        kind_of(tmp_path)
    assert "MLmodel" in refused.value.hint


@pytest.mark.parametrize("name", ["m.joblib", "m.pkl", "m.pt2", "saved/saved_model.pb"])
def test_what_runs_code_needs_trust(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    source = path.parent if path.parent != tmp_path else path
    with pytest.raises(UntrustedPickleError, match="runs whatever code"):
        check_trusted(source, trust=None)
    assert check_trusted(source, trust="isolated").program


@pytest.mark.parametrize("name", ["m.skops", "m.ubj", "m.cbm", "m.onnx", "m.keras"])
def test_what_holds_no_code_needs_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert not check_trusted(tmp_path / name, trust=None).program


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_trust_makes_a_file_of_keras_a_program_that_is_isolated(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    asked = {"path": str(tmp_path / name), "trust": "isolated"}
    with pytest.raises(NotIsolatedError, match="network and files"):
        isolated_child._check_isolated(asked, ("network", "files"))
    isolated_child._check_isolated(asked, ())
    isolated_child._check_isolated(asked | {"trust": "unisolated"}, ("network",))
    isolated_child._check_isolated(asked | {"trust": None}, ("network",))  # safe mode keeps code from running
    for trust, beside in ((None, True), ("isolated", False)):
        request = PackRequest(
            path=tmp_path / name,
            sample=tmp_path / "rows.npy",
            target=None,
            tag="m:1.0.0",
            tolerance=Tolerance(),
            trust=trust,  # type: ignore[arg-type]
        )
        assert (tmp_path in list(request.readable())) is beside


@pytest.mark.parametrize(("version", "is_safe"), [("3.11.2", False), ("3.9.0", False), ("3.11.3", True), ("4.0", True)])
def test_a_keras_that_does_not_keep_to_its_safe_mode_needs_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_safe: bool
) -> None:
    modes = []

    def loaded(_path: Path, *, compile: bool, safe_mode: bool) -> None:  # noqa: A002 - Keras' name
        modes.append(safe_mode)
        raise ValueError("no model")

    keras = SimpleNamespace(__version__=version, saving=SimpleNamespace(load_model=loaded))
    monkeypatch.setitem(sys.modules, "keras", keras)  # type: ignore[arg-type]
    (tmp_path / "m.h5").write_bytes(b"")
    with pytest.raises(SourceError, match="can't read" if is_safe else f"Keras {version} may run code") as refused:
        load_model(tmp_path / "m.h5")
    assert isinstance(refused.value, UntrustedPickleError) is not is_safe
    with pytest.raises(SourceError, match="can't read"):
        load_model(tmp_path / "m.h5", trust="isolated")
    assert modes == ([True, False] if is_safe else [False])


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("m.skops", "skops", "skops"),
        ("m.pt2", "torch", "torch"),
        ("m.keras", "keras", "tensorflow"),
        ("saved_model.pb", "tensorflow", "tensorflow"),
        ("m.cbm", "catboost", "catboost"),
    ],
)
def test_a_missing_library_says_which_extra_cures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    for known in [module, *(loaded for loaded in list(sys.modules) if loaded.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, known, None)
    archive(tmp_path / name, "m/archive_format")
    path = tmp_path if name.endswith(".pb") else tmp_path / name
    with pytest.raises(LibraryMissingError) as refused:
        load_model(path, trust="isolated")
    assert f"shoal-converter[{extra}]" in refused.value.hint


def test_no_suffix_is_of_a_model_and_of_a_sample_save_json() -> None:
    from shoal_converter.sources.model_file import SUFFIXES

    assert set(SUFFIXES) & set(SAMPLES) == {".json"}


@pytest.mark.parametrize(
    "words",
    [
        ["--trust", "SOURCE"],
        ["SOURCE", "--trust"],
        ["SOURCE", "--trust=unisolated"],
        ["SOURCE", "--trust", "unisolated"],
        ["--trust", "isolated", "SOURCE"],
    ],
    ids=" ".join,
)
def test_trust_is_taken_wherever_it_stands(
    shoal_convert: Any, workshop: Workshop, tmp_path: Path, words: list[str]
) -> None:
    given = [str(workshop.file("model.joblib")) if word == "SOURCE" else word for word in words]
    code, _, err = shoal_convert("pack", *given, "--sample", tmp_path / "none.csv", "-t", "iris:1.0.0")
    assert code == 2
    assert "there is no sample file" in err
