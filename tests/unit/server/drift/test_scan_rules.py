"""What the scan believes of slots and lengths that devices claim."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

from shoal_server.drift.scan import MOST_STRANGERS, _believed, _bucket_ms


def window(slot: str) -> Any:
    return SimpleNamespace(slot=slot, digest="sha256:aa")


def test_a_device_that_invents_slots_opens_a_bounded_number_of_watches() -> None:
    found = [window("reader"), *(window(f"slot-{at}") for at in range(500)), window("reader")]
    kept = {one.slot for one in _believed(found, {}, {"reader"})}
    assert "reader" in kept
    assert len(kept) == 1 + MOST_STRANGERS
    known = {(f"old-{at}", "sha256:aa") for at in range(MOST_STRANGERS)}
    assert {one.slot for one in _believed([*found, window("old-3")], known, {"reader"})} == {"reader", "old-3"}


def test_windows_of_another_length_begin_anew_only_when_most_devices_have_them() -> None:
    known: Any = SimpleNamespace(bucket_ms=1000, devices=10)
    assert _bucket_ms(Counter({5000: 3, 1000: 1}), None) == 5000
    assert _bucket_ms(Counter({5000: 5}), known) == 1000
    assert _bucket_ms(Counter({5000: 6, 1000: 4}), known) == 5000
    assert _bucket_ms(Counter({10**9: 3}), None) == 3_600_000
