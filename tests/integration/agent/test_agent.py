"""One agent against a simulated server: from the first install to going back."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from shoal_agent.errors import NoModelError, StateInUseError
from shoal_agent.status import Health, health, stored_status
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.mqtt.topics import Up


def answer(agent) -> float:
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


def kinds(world) -> list[str]:
    return [event.kind for event in sorted(world.server.of(Up.EVENT), key=lambda event: event.seq)]


@pytest.fixture
def settled(world):
    """A world whose device runs version 1 (weight 3), and the bundle's digest."""
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    agent = world.agent()
    agent.start()
    world.committed(digest)
    yield world, agent, digest
    agent.stop()


def test_a_start_moves_in_an_identity_whose_join_was_cut_off_at_the_end(world):
    (world.state / "identity").rename(world.state / "identity.new")
    with world.agent() as agent:
        assert agent.device == "dev-1"
        world.until(lambda: agent.connected, "a login with it")
    assert not (world.state / "identity.new").exists()


def test_a_wanted_bundle_is_installed_proven_and_reported(world):
    world.run_real_self_tests()
    digest = world.pack(3.0, "1.0")
    world.server.assign("quality", digest, name="quality:1.0")
    with world.agent() as agent:
        world.committed(digest)
        assert answer(agent) == 3.0
        status = agent.status()
        assert status["slots"]["quality"]["active"] == digest
        assert status["slots"]["quality"]["variant"] == "model/model.onnx"
        assert stored_status(world.state)["running"]
    assert kinds(world) == ["activated", "committed"]
    birth = world.server.of(Up.BIRTH)[0]
    assert (birth.labels, birth.window_s) == ({"site": "bern"}, 0.5)
    assert birth.targets_version >= 1
    after = stored_status(world.state)
    assert (after["running"], health(after), after["spool"]["windows"]) == (False, Health.OK, 0)


def test_windows_reach_the_server_once(settled):
    world, agent, digest = settled
    for _ in range(5):
        answer(agent)
    world.until(lambda: sum(w.resources["rows"] for w in world.server.of(Up.PROFILE)) >= 5, "five rows in windows")
    windows = {w.seq: w for w in world.server.of(Up.PROFILE)}
    assert {w.digest for w in windows.values()} == {digest}
    assert sum(w.resources["rows"] for w in windows.values()) == 5
    world.until(lambda: agent.status()["spool"]["windows"] == 0, "the acknowledgement")


def test_windows_wait_for_the_servers_acknowledgement_and_are_sent_again(settled):
    world, agent, _ = settled
    world.server.acknowledge = False
    answer(agent)
    world.until(lambda: len(world.server.of(Up.PROFILE)) >= 2, "the same window again")
    assert agent.status()["spool"]["windows"] >= 1
    assert len({w.seq for w in world.server.of(Up.PROFILE)}) == 1
    world.server.acknowledge = True
    world.until(lambda: agent.status()["spool"]["windows"] == 0, "the acknowledgement")


def test_a_second_version_replaces_the_first_without_a_gap(settled):
    world, agent, first = settled
    second = world.pack(5.0, "1.1")
    world.assign(second)
    seen = []
    world.until(lambda: seen.append(answer(agent)) or world.report().active == second, "the switch")
    assert set(seen) <= {3.0, 5.0}
    world.committed(second)
    assert answer(agent) == 5.0
    assert world.report().previous == first


def test_a_window_that_the_server_rejects_is_not_sent_for_ever_but_reported_lost(settled):
    world, agent, _ = settled
    refused = []
    world.server.refuse = lambda kind, message: (
        kind is Up.PROFILE and len(refused) < 3 and not refused.append(message.seq)
    )
    world.until(lambda: answer(agent) and len(refused) == 3, "three refusals")
    lost = lambda: [e.data["ranges"] for e in world.server.of(Up.EVENT) if e.kind == "lost"]  # noqa: E731
    world.until(lambda: len(lost()) == 3, "word of the losses")
    assert sorted(lost()) == [[[seq, seq]] for seq in sorted(set(refused))]
    assert agent.status()["spool"]["dropped"] == 3


def test_an_unsigned_bundle_is_refused_and_the_running_model_unharmed(settled):
    world, agent, first = settled
    unsigned = world.pack(9.0, "2.0", released=False)
    world.assign(unsigned)
    fault = world.failed(unsigned)
    assert fault.code == "unsigned"
    assert (world.report().active, answer(agent)) == (first, 3.0)
    assert not any(unsigned in path for _, path, _ in world.server.requests)
    assert kinds(world)[-1] == "rejected"


def test_a_denied_bundle_is_refused(settled):
    world, agent, _ = settled
    denied = world.pack(9.0, "2.0")
    world.server.restrict(deny=(denied,))
    world.assign(denied)
    assert world.failed(denied).code == "denied"
    assert answer(agent) == 3.0


def test_a_tampered_blob_is_never_taken_and_the_running_model_unharmed(settled):
    world, agent, first = settled
    second = world.pack(5.0, "1.1", padding=10_000)
    raw = world.server.get(f"/v2/quality/manifests/{second}", {})[2]
    readme = next(layer for layer in json.loads(raw)["layers"] if layer["size"] == 10_000)
    world.server.faults.swapped[readme["digest"]] = b"\0" * 10_000
    world.assign(second)
    world.until(lambda: waits_for(agent) == "digest_mismatch", "that it waits")
    assert (world.report().active, answer(agent)) == (first, 3.0)
    world.server.faults.swapped.clear()  # whoever tampered with it on the way
    world.committed(second)


def waits_for(agent) -> str | None:
    waiting = agent.status()["slots"]["quality"]["waiting"]
    return waiting["code"] if waiting else None


def test_a_tampered_manifest_is_never_taken(settled):
    world, agent, _ = settled
    second = world.pack(5.0, "1.1")
    raw = world.server.get(f"/v2/quality/manifests/{second}", {})[2]
    world.server.faults.swapped[second] = raw.replace(b"bundle.json", b"bundle.jsom")
    world.assign(second)
    world.until(lambda: waits_for(agent) == "digest_mismatch", "that it waits")
    assert answer(agent) == 3.0


def test_a_replayed_older_document_is_refused_with_a_reason(settled):
    world, agent, _ = settled
    old = world.server.desired
    second = world.pack(5.0, "1.1")
    world.assign(second)
    world.committed(second)
    world.server.desired = old
    world.until(lambda: (agent.status()["refused"] or {}).get("code") == "rollback", "the refusal")
    assert (answer(agent), agent.status()["generation"]) == (5.0, 2)
    world.until(lambda: "refused" in kinds(world), "the event")
    assert kinds(world).count("refused") == 1
    assert health(agent.status()) is Health.DEGRADED


@pytest.mark.parametrize(
    ("forged", "code"),
    [({"role": "targets"}, "unsigned"), ({"device": "dev-2"}, "unsigned"), ({"age_s": 30 * 86_400}, "expired")],
)
def test_a_document_of_another_key_device_or_time_is_refused(settled, forged, code):
    world, agent, _ = settled
    world.server.slots.clear()
    world.server.desired = world.server.sign(generation=9, **forged)
    world.until(lambda: (agent.status()["refused"] or {}).get("code") == code, "the refusal")
    assert (answer(agent), agent.status()["generation"]) == (3.0, 1)


def test_a_model_that_fails_its_golden_rows_never_answers(settled):
    world, agent, first = settled
    agent.stop()
    world.run_real_self_tests()
    wrong = world.pack(7.0, "1.1", golden_weight=7.5)
    world.assign(wrong)
    with world.agent() as again:
        fault = world.failed(wrong)
        assert fault.code == "preflight_golden"
        assert "golden row" in fault.message
        assert (world.report().active, answer(again)) == (first, 3.0)
        world.until(lambda: not list((world.state / "bundles").glob(f"{wrong[7:]}*")), "it is deleted")


def test_a_bundle_that_does_not_fit_is_refused_before_its_model_is_fetched(settled):
    world, _, _ = settled
    future = world.pack(7.0, "1.1", min_onnxruntime="99.0")
    world.assign(future)
    assert world.failed(future).code == "unfit"
    blobs = [path for method, path, _ in world.server.requests if "/blobs/" in path]
    assert len(blobs) == len(set(blobs))
    raw = world.server.get(f"/v2/quality/manifests/{future}", {})[2]
    model = next(layer["digest"] for layer in json.loads(raw)["layers"] if "model.onnx" in str(layer))
    assert not any(model in path for path in blobs)


def test_the_agent_goes_back_by_an_operators_word_and_does_not_take_the_bundle_again(settled):
    world, agent, first = settled
    second = world.pack(5.0, "1.1")
    world.assign(second)
    world.committed(second)
    agent.roll_back("quality", reason="it smells")
    world.reported(lambda r: r.active == first and r.error and r.error.code == "local_rollback", "the way back")
    world.until(lambda: kinds(world)[-1] == "rolled_back", "the event")
    assert answer(agent) == 3.0  # from then on; what is active is reported once saved, which is before it answers
    world.assign(second, attempt=1)
    world.committed(second)


def test_there_is_no_way_back_from_the_first_model(settled):
    _, agent, _ = settled
    with pytest.raises(NoModelError, match="no previous"):
        agent.roll_back("quality")
    assert answer(agent) == 3.0


def test_a_restart_without_any_network_answers_at_once(settled):
    world, agent, first = settled
    agent.stop()
    world.server.faults.status = 503
    with world.agent() as again:
        assert answer(again) == 3.0
        assert again.status()["slots"]["quality"]["active"] == first


def test_an_empty_wish_empties_the_slot(settled):
    world, agent, _ = settled
    world.assign(None)
    world.reported(lambda r: r.state == "no_model" and r.active is None, "an empty slot")
    with pytest.raises(NoModelError):
        answer(agent)


def test_two_agents_never_share_a_state_folder(settled):
    world, _, _ = settled
    with pytest.raises(StateInUseError, match="is in use by the agent with process id"):
        world.agent().start()


def test_only_the_proven_models_stay_on_the_disk(settled):
    world, _, first = settled
    digests = [first]
    for n in range(3):
        digests.append(world.pack(10.0 + n, f"1.{n + 1}"))
        world.assign(digests[-1])
        world.committed(digests[-1])
    kept = {digests[0], digests[2], digests[3]}  # the fallback, the previous, the active

    def stored() -> set[str]:
        return {f"sha256:{path.stem}" for path in (world.state / "bundles").iterdir()}

    world.until(lambda: len(stored()) == len(kept), "garbage is gone")
    assert stored() == kept


def test_downloads_that_are_cut_go_on_where_they_stopped(settled):
    world, _, _ = settled
    world.server.faults.cut_after = 3_000
    second = world.pack(5.0, "1.1", padding=20_000)
    world.assign(second)
    world.committed(second)
    readme = sha256_digest(world.server.get(f"/v2/quality/blobs/{_largest(world, second)}", {})[2])
    ranges = [span for _, path, span in world.server.requests if readme in path]
    assert ranges == [None, *(f"bytes={n}-" for n in range(3_000, 20_000, 3_000))]


def _largest(world, digest: str) -> str:
    raw = world.server.get(f"/v2/quality/manifests/{digest}", {})[2]
    return str(max(json.loads(raw)["layers"], key=lambda layer: layer["size"])["digest"])


def test_many_agents_live_in_one_process(world, tmp_path):
    before = threading.active_count()
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    agent = world.agent()
    with agent:
        world.committed(digest)
        assert threading.active_count() - before <= 4 + 2  # update, uplink, http, counting; two of the server
    world.until(lambda: threading.active_count() <= before + 2, "its threads are gone")


def test_true_labels_reach_the_server_once_although_the_agent_restarts(world):
    digest = world.pack(3.0, "1.0", columns=1)
    world.assign(digest)
    world.server.acknowledge = False
    with world.agent() as agent:
        world.committed(digest)
        answers = [agent.model("quality").predict({"x": np.array([[x]], np.float32)}) for x in (1.0, 2.0)]
        ids = [one.prediction_id for one in answers]
        assert agent.feedback(ids[0], 2.5) == 1
    with world.agent() as agent:
        world.until(lambda: world.server.of(Up.PROFILE), "a window")
        assert agent.feedback(ids[0], 2.5) == 0, "told before the restart"
        assert agent.feedback(ids[1], 6.0) == 1
        world.server.acknowledge = True
        world.until(lambda: len(labels(world)) == 2, "both labels, the second in a window without predictions")
        world.until(lambda: agent.status()["spool"]["windows"] == 0, "the acknowledgement")
    assert sorted(group.errors.error for group in labels(world)) == [0.0, 0.5]
    assert {(group.slot, group.digest) for group in labels(world)} == {("quality", digest)}


def labels(world) -> list:
    windows = {window.seq: window for window in world.server.of(Up.PROFILE)}
    return [group for window in windows.values() for group in window.labels]
