"""Which execution providers run a model: hint, configuration, and what onnxruntime has."""

from __future__ import annotations

import pytest

from shoal_agent.domain.fit import DeviceFacts, misfits, variant_for
from shoal_agent.domain.providers import CPU, Placement, parse_providers, placement
from shoal_agent.errors import SettingsError
from shoal_agent.settings import load_settings
from shoal_protocol.bundle.schema import BundleInfo, Variant

CUDA, QNN = "CUDAExecutionProvider", "QNNExecutionProvider"
INFO = BundleInfo(
    name="q", version="1", task="other", framework="t", variants=(Variant(path="npu", providers=(QNN,)), Variant())
)


def _facts(available: tuple[str, ...] = (CPU,), wanted: tuple[str, ...] | None = None) -> DeviceFacts:
    return DeviceFacts("linux/arm64", "1.31.0", 1 << 33, available, wanted)


@pytest.mark.parametrize(
    ("hint", "wanted", "available", "expected"),
    [
        ([CPU], None, [CPU], Placement((CPU,))),
        ([CUDA, CPU], None, [CPU], Placement((CPU,), (CUDA,))),
        ([CUDA, CPU], None, [CUDA, CPU], Placement((CUDA, CPU))),
        ([CPU, CUDA], None, [CPU], Placement((CPU,))),
        ([QNN], None, [CPU], Placement((), (QNN,))),
        ([CPU], [CUDA, CPU], [CUDA, CPU], Placement((CUDA, CPU))),
        ([CPU], [CUDA], [CPU], Placement((), (CUDA,))),
        ([QNN], [CUDA, CPU], [CUDA, CPU, QNN], Placement(())),
        (["AzureExecutionProvider"], None, ["AzureExecutionProvider", CPU], Placement((), ("AzureExecutionProvider",))),
    ],
)
def test_placement(hint, wanted, available, expected):
    assert placement(hint, wanted=wanted, available=available) == expected


def test_the_variant_is_the_first_that_something_here_runs():
    assert variant_for(INFO, _facts()).path == Variant().path
    assert variant_for(INFO, _facts((QNN, CPU))).path == "npu"
    assert variant_for(INFO, _facts((QNN, CPU), (CPU,))).path == Variant().path


def test_a_configuration_that_nothing_satisfies_is_told_by_its_setting():
    assert misfits(INFO, _facts((CPU,), (CUDA,))) == [
        f"no variant runs on linux/arm64 with providers = {CUDA}; the onnxruntime here has {CPU}"
    ]


def test_names_are_short_or_long_in_any_case():
    assert parse_providers("Auto") is None
    assert parse_providers("cuda,CPUExecutionProvider, cpu") == (CUDA, CPU)


@pytest.mark.parametrize("text", ["", "gpu", "azure", "cpu,,cuda"])
def test_unknown_names_are_refused_at_the_start(tmp_path, text):
    with pytest.raises(SettingsError, match="providers = .*expected auto, or names"):
        load_settings({"providers": text}, state=tmp_path)
