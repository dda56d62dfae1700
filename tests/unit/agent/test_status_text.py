"""What people at the device read of a status, and how bundles are called there."""

from __future__ import annotations

import logging

from shoal_agent.status_text import described, readiness
from shoal_agent.updating.bundle_names import shown_stored

DIGEST, OTHER = "sha256:" + "1a2b3c4d5e6f" + "0" * 52, "sha256:" + "ffee" * 16


def status(**slot) -> dict:
    plain = {
        "state": "idle",
        "active": DIGEST,
        "bundle": "quality:1.0",
        "variant": "model/model.onnx",
        "target": DIGEST,
        "name": "quality:1.0",
        "trial": None,
        "engine": None,
        "shadow": None,
        "sampling": None,
        "error": None,
        "waiting": None,
    }
    return {
        "device": "cam-7",
        "running": True,
        "connected": True,
        "generation": 4,
        "link": {"protocol": "mqtt5", "fault": None},
        "hold": None,
        "slots": {"quality": plain | slot},
        "spool": {"windows": 1, "bytes": 2, "dropped": 0},
        "refused": None,
        "clock": {"plausible": True},
    }


def test_bundles_are_called_by_name_and_a_short_digest():
    assert list(described(status()))[1] == "  quality: idle, active quality:1.0 (1a2b3c4d5e6f)"
    assert readiness(status()) == "cam-7: quality: quality:1.0 (1a2b3c4d5e6f)"
    assert readiness(status(active=None)) == "cam-7: quality: no model"
    assert readiness(status() | {"slots": {}}) == "cam-7: nothing is assigned yet"


def test_what_is_wanted_and_not_active_yet_is_told():
    lines = list(described(status(state="downloading", target=OTHER, name="quality:1.1")))
    assert lines[1:3] == [
        "  quality: downloading, active quality:1.0 (1a2b3c4d5e6f)",
        "    wanted: quality:1.1 (ffeeffeeffee)",
    ]


def test_a_variant_is_told_where_it_is_not_the_canonical_model():
    assert not any("variant" in line for line in described(status()))
    assert "    variant: model/model.int8.onnx" in described(status(variant="model/model.int8.onnx"))


def test_a_shadow_is_told_with_what_it_waits_for():
    shadow = {"digest": OTHER, "state": "running", "error": None, "bundle": "quality:1.1"}
    assert "    shadow: quality:1.1 (ffeeffeeffee) is running" in described(status(shadow=shadow))
    fault = {"code": "memory_short", "message": "48 MB", "digest": OTHER}
    shadow = {"digest": OTHER, "state": "waiting", "error": fault}
    assert "    shadow: bundle ffeeffeeffee is waiting: memory_short: 48 MB" in described(status(shadow=shadow))


def test_the_log_names_bundles(device, caplog):
    caplog.set_level(logging.INFO)
    first = device.install("1.0")
    second = device.bundle("1.1")
    device.want(second)
    device.all.roll_back("s", "no")
    device.turn()
    messages = [record.getMessage() for record in caplog.records]
    name = f"q:1.1 ({second[7:19]})"
    assert f"slot s: {name} is activated" in messages
    assert f"slot s: {name} is rolled back: local_rollback, no" in messages
    assert not [message for message in messages if first in message or second in message]


def test_a_bundle_that_is_not_stored_is_called_as_the_assignment_does(device):
    assert shown_stored(device.store, OTHER, "quality:1.1") == "quality:1.1 (ffeeffeeffee)"
    assert shown_stored(device.store, OTHER) == "bundle ffeeffeeffee"
