"""What a file holds is told by its name and, of PyTorch, its archive; what holds no whole model says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from tests.integration.converter.conftest import Workshop

from shoal_converter.errors import LibraryMissingError, SourceError, UntrustedPickleError
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
    for known in [module, *(loaded for loaded in list(__import__("sys").modules) if loaded.startswith(f"{module}."))]:
        monkeypatch.setitem(__import__("sys").modules, known, None)
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
