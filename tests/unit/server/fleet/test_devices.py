"""What cohorts may know of a device, and documents of what it should run."""

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.fleet.desired import LIFETIME_S, compose, half_life, next_generation
from shoal_server.fleet.devices import ALL_SLOTS, Device, DeviceState


def test_labels_are_known_by_both_names_and_never_pass_for_facts() -> None:
    device = Device(
        id="cam-7",
        state=DeviceState.ACCEPTED,
        labels={"site": "bern", "arch": "fake", "id": "fake"},
        facts={"os": "linux", "agent": "0.1", "unknown": "x"},
    )
    assert device.cohort_facts() == {
        "id": "cam-7",
        "site": "bern",
        "label.site": "bern",
        "label.arch": "fake",
        "label.id": "fake",
        "os": "linux",
        "agent": "0.1",
    }
    assert (device.name, device.agent_version) == ("cam-7", "0.1")


def test_a_pin_holds_one_slot_or_all() -> None:
    one = Device(id="a", state=DeviceState.ACCEPTED, pins={"quality": "repair"})
    every = Device(id="a", state=DeviceState.ACCEPTED, pins={ALL_SLOTS: "show"})
    assert (one.pin("quality"), one.pin("other"), every.pin("other")) == ("repair", None, "show")


def test_a_document_says_what_and_until_when() -> None:
    target = SlotTarget(digest="sha256:" + "1" * 64)
    made = compose("cam-7", generation=3, slots={"z": target, "a": target}, now=1000.5)
    assert (made.device, made.generation, list(made.slots)) == ("cam-7", 3, ["a", "z"])
    assert (made.issued, made.expires - made.issued) == (1_000_500, int(LIFETIME_S * 1000))
    assert half_life(issued_at=100, expires_at=300) == 200


def test_generations_continue_above_what_a_device_has_seen() -> None:
    assert next_generation(own=3, reported=3) == 4
    assert next_generation(own=3, reported=90) == 91
