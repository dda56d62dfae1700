"""Sampling of raw inputs: permission, sending, and ending; the only way on which raw rows leave this device.

A thread that lives while something is permitted: it puts a `Sampler` beside each permitted slot's active model, sends
what that kept, and ends. Rows live in memory only, never in the spool; they go over one HTTP route to the server, over
TLS or loopback.

Invariant: the permission is looked at again right before every sending; without one, after its end, or when the newest
assignment no longer holds it, nothing is sent and everything kept is forgotten.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec

from shoal_agent.domain.device import DeviceState
from shoal_agent.domain.slot import SamplingWish
from shoal_agent.errors import TransportError
from shoal_agent.ports import Clock
from shoal_agent.updating.occasional import OccasionalThread
from shoal_protocol.errors import ShoalError
from shoal_protocol.samples import MAX_BATCH_BYTES, MAX_BATCH_ROWS, SAMPLES_PATH, SampleBatch

if TYPE_CHECKING:
    from shoal_agent.runtime.model import LoadedModel
    from shoal_agent.runtime.sampler import Sampler, Taken

_LOOK_S = 0.5
_RETRY_S = 5.0
_HEAD_BYTES = 1024
_log = logging.getLogger(__name__)


class SampleSender(Protocol):
    """HTTP to the server."""

    url: str

    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request and read the whole answer."""

    def close(self) -> None:
        """Close all connections."""


class SamplingClocks(msgspec.Struct, frozen=True):
    """What time it is.

    Attributes:
        reference_ms: The device's reference time, by which permissions end; milliseconds since the epoch.
        monotonic: Seconds; a permission also ends by it, so that setting the clock back prolongs nothing.
        window_s: After so long the budget of rows and bytes begins anew, seconds.
    """

    reference_ms: Callable[[], int]
    monotonic: Clock
    window_s: float


class _Place(msgspec.Struct):
    """One slot that is sampled."""

    wish: SamplingWish
    ends_at: float
    sampler: Sampler | None = None
    waiting: bytes = b""
    rows: int = 0
    due_at: float = 0.0
    window_ends: float = 0.0
    sent: int = 0
    seen: int = 0
    dropped: int = 0
    fault: str = ""


class Sampling:
    """The sampling of one device.

    Args:
        state: Returns the device's state, which holds the permissions.
        active: Returns the model that answers in a slot.
        sample: Makes a sampler beside a model, of a share; not started.
        sender: To the server.
        clocks: What time it is.
    """

    def __init__(
        self,
        *,
        state: Callable[[], DeviceState],
        active: Callable[[str], LoadedModel | None],
        sample: Callable[[LoadedModel, float], Sampler],
        sender: SampleSender,
        clocks: SamplingClocks,
    ) -> None:
        self._state = state
        self._active = active
        self._sample = sample
        self._sender = sender
        self._clocks = clocks
        self._is_safe = is_safe(sender.url)
        self._places: dict[str, _Place] = {}
        self._over: dict[str, SamplingWish] = {}
        self._thread = OccasionalThread("sampling", self.turn, every_s=_LOOK_S)

    def look(self) -> None:
        """See to it that what is permitted now is done; cheap, called after every change."""
        self._thread.wake(needed=self._is_needed)

    def _is_needed(self) -> bool:
        return bool(self._places) or any(slot.sampling for slot in self._state().slots.values())

    def stop(self) -> None:
        """End all sampling; what was kept is forgotten."""
        self._thread.stop()
        for name in list(self._places):
            self._end(name, "the agent stops")
        self._sender.close()

    def reports(self) -> dict[str, dict[str, Any]]:
        """Return what is sampled now, by slot, for `shoal-agent status`."""
        return {
            name: {
                "share": place.wish.share,
                "until": place.wish.until_ms,
                "rows_seen": place.seen,
                "rows_sent": place.sent,
                "rows_dropped": place.dropped,
                "fault": place.fault or None,
            }
            for name, place in list(self._places.items())
        }

    def turn(self) -> bool:
        """Do what is due once; returns whether anything is permitted still."""
        for name in list(self._places):
            if not self._is_permitted(name):
                self._end(name, "its permission ended")
        for name, slot in self._state().slots.items():
            if slot.sampling is not None and name not in self._places and self._over.get(name) != slot.sampling:
                self._begin(name, slot.sampling)
        for name, place in list(self._places.items()):
            self._follow(name, place)
            self._send(name, place)
        return bool(self._places)

    def _begin(self, name: str, wish: SamplingWish) -> None:
        left_s = (wish.until_ms - self._clocks.reference_ms()) / 1000
        if left_s <= 0:
            return
        place = _Place(wish, self._clocks.monotonic() + left_s)
        if not self._is_safe:
            place.fault = f"{self._sender.url} has no TLS and is not this machine: raw rows are not sent to it"
        self._places[name] = place
        _log.warning("slot %s: raw rows are sampled (%g %% of them) for %d s: %s", name, 100 * wish.share, left_s,
                     place.fault or "as the signed assignment allows")  # fmt: skip

    def _is_permitted(self, name: str) -> bool:
        place, slot = self._places[name], self._state().slots.get(name)
        return (
            not self._thread.stopping
            and slot is not None
            and slot.sampling == place.wish
            and self._clocks.reference_ms() < place.wish.until_ms
            and self._clocks.monotonic() < place.ends_at
        )

    def _end(self, name: str, why: str) -> None:
        place = self._places.pop(name, None)
        if place is None:
            return
        if place.sampler is not None:
            place.sampler.stop()
        self._over[name] = place.wish  # whatever a clock says later, it does not begin again
        _log.warning("slot %s: raw rows are no longer sampled: %s; %d were sent", name, why, place.sent)

    def _follow(self, name: str, place: _Place) -> None:
        """Sample the model that answers now; after a swap that is another one, and what waited goes unsent."""
        model = self._active(name)
        if place.sampler is not None and (model is None or not place.sampler.is_of(model)):
            place.sampler.stop()
            place.sampler, place.waiting = None, b""
        if place.sampler is None and model is not None and self._is_safe:
            place.sampler = self._sample(model, place.wish.share)
            place.sampler.start()
        now = self._clocks.monotonic()
        if place.sampler is not None and now >= place.window_ends:
            place.sampler.begin_window()
            place.window_ends = now + self._clocks.window_s

    def _send(self, name: str, place: _Place) -> None:
        if place.sampler is None or self._clocks.monotonic() < place.due_at:
            return
        if not place.waiting:
            self._gather(name, place, place.sampler)
        if not place.waiting or not self._is_permitted(name):
            return
        try:
            status, _, answer = self._sender.exchange(
                "POST", SAMPLES_PATH, headers={"Content-Type": "application/json"}, body=place.waiting
            )
        except TransportError as error:
            self._failed(place, error)
            return
        if status >= 500 or status in {408, 429}:
            self._failed(place, TransportError(f"the server answered {status}"))
            return
        if status < 300:
            place.sent += place.rows
            place.fault = ""
        else:
            place.dropped += place.rows
            place.fault = f"the server refused them with {status}: {answer[:200].decode(errors='replace')}"
        place.waiting = b""

    def _failed(self, place: _Place, error: ShoalError) -> None:
        place.fault, place.due_at = error.message, self._clocks.monotonic() + _RETRY_S

    def _gather(self, name: str, place: _Place, sampler: Sampler) -> None:
        taken = sampler.take()
        place.seen += taken.seen
        rows = _fitting(taken)
        dropped = taken.dropped + len(taken.rows) - len(rows)
        place.dropped += dropped
        if rows:
            head = SampleBatch(
                batch=secrets.token_hex(16), slot=name, digest=sampler.digest, seen=taken.seen, dropped=dropped, rows=()
            )
            place.waiting = msgspec.json.encode(head).removesuffix(b"]}") + b",".join(rows) + b"]}"
            place.rows = len(rows)


def _fitting(taken: Taken) -> list[bytes]:
    """Return the rows, the first ones, that find room in one batch."""
    rows, size = [], _HEAD_BYTES
    for row in taken.rows[:MAX_BATCH_ROWS]:
        size += len(row) + 1
        if size > MAX_BATCH_BYTES:
            break
        rows.append(row)
    return rows


def is_safe(url: str) -> bool:
    """Tell whether nobody on the way to a server can read what is sent: TLS, or the same machine.

    >>> is_safe("https://shoal.example"), is_safe("http://127.0.0.1:8080"), is_safe("http://10.0.0.1:8080")
    (True, True, False)
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
