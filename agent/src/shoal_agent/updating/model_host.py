"""From a stored bundle to a model that answers: loading, installing, and what the model on trial has done.

The meeting point with the answering half; onnxruntime is imported at the first load.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_agent.domain.fit import DeviceFacts, variant_for
from shoal_agent.ports import BlobStore
from shoal_agent.runtime.memory import resident_bytes
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.schema import parse_bundle_info
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.codec import LATENCY_EDGES_US

if TYPE_CHECKING:
    from shoal_agent.runtime.batching import Batching
    from shoal_agent.runtime.feedback import Feedback
    from shoal_agent.runtime.model import LoadedModel
    from shoal_agent.runtime.shadow import Shadow
    from shoal_agent.runtime.slots import SlotTable
    from shoal_agent.runtime.window_sums import Totals


_log = logging.getLogger(__name__)


class Seen(msgspec.Struct, frozen=True):
    """What a model has done since it was loaded.

    Attributes:
        predictions: Answered or failed.
        errors: Failed inside the model.
        slow: Answered, and surely slower than the bundle's budget for as many rows as a call has on average.
        rss_bytes: Resident memory of the process; 0: unknown.
        memory_budget_bytes: That the bundle allows itself; none: any.
        answers: Rows whose answers were looked at.
        nans: At least so many of those answers are not a number.
        running_s: For how long the oldest call is under way.
    """

    predictions: int = 0
    errors: int = 0
    slow: int = 0
    rss_bytes: int = 0
    memory_budget_bytes: int | None = None
    answers: int = 0
    nans: int = 0
    running_s: float = 0.0


def load_stored(
    store: BlobStore, digest: str, *, facts: DeviceFacts, threads: int | None, batching: Batching | None = None
) -> LoadedModel:
    """Load a stored bundle, in the variant that runs here.

    Raises:
        ContentError: It is not stored, or can't be run here.
        DigestMismatchError: A file is damaged.
    """
    from shoal_agent.runtime.bundle_files import BundleFiles  # noqa: PLC0415 - numpy comes with it
    from shoal_agent.runtime.model import LoadedModel  # noqa: PLC0415 - onnxruntime comes with it

    manifest = store.manifest(digest)
    if manifest is None:
        raise ContentError(f"bundle {digest} is not stored")
    files = BundleFiles(digest, manifest, lambda blob, _most: store.read(blob))
    variant = variant_for(parse_bundle_info(files.read(BUNDLE_JSON)), facts)
    if variant is None:
        raise ContentError(f"bundle {digest} has no variant for {facts.platform}")
    place = facts.place(variant)
    model = LoadedModel.load(files, variant=variant.path, threads=threads, providers=place.names, batching=batching)
    if place.missing:
        model.fallback = f"the onnxruntime here has no {', '.join(place.missing)}"
        _log.warning("%s:%s runs on %s: %s", model.name, model.version, place.names[0], model.fallback)
    return model


class ModelHost:
    """Models of one device.

    Args:
        store: Where the bundles are.
        slots: Where models answer.
        facts: Chooses the variant.
        threads: Of onnxruntime for each model; none: as the bundle says.
        feedback: Told of each model before it answers, so that labels can name its predictions.
        shadow_share: Share of the calls that shadows see.
        batching: How far calls at the same time are answered together; none: each by itself.
        holds_one: Whether this device can't hold two models at a time.
    """

    def __init__(
        self,
        store: BlobStore,
        slots: SlotTable,
        *,
        facts: DeviceFacts,
        threads: int | None,
        feedback: Feedback | None = None,
        shadow_share: float = 1.0,
        batching: Batching | None = None,
        holds_one: bool = False,
    ) -> None:
        self._store = store
        self._slots = slots
        self._facts = facts
        self._threads = threads
        self._feedback = feedback
        self._shadow_share = shadow_share
        self._batching = batching
        self.holds_one = holds_one
        """Whether the active model has to be ended before another is tested or loaded."""
        self._installed: dict[str, str] = {}

    def load(self, digest: str) -> LoadedModel:
        """Load a stored bundle.

        Raises:
            ContentError: It is not stored, or can't be run here.
            DigestMismatchError: A file is damaged.
        """
        return load_stored(self._store, digest, facts=self._facts, threads=self._threads, batching=self._batching)

    def install(self, slot: str, model: LoadedModel) -> None:
        """Let a model answer from the next prediction on."""
        if self._feedback is not None:
            self._feedback.follow(slot, model)
        self._slots.install(slot, model)
        self._installed[slot] = model.engine.form

    def remove(self, slot: str) -> None:
        """Leave the slot without a model."""
        self._slots.remove(slot)
        self._installed.pop(slot, None)

    def active(self, slot: str) -> LoadedModel | None:
        """Return the model that answers in a slot."""
        return self._slots.get(slot)

    def beside(self, active: LoadedModel, shadow: LoadedModel) -> Shadow:
        """Put a shadow beside a model, not started yet.

        Raises:
            UnfitError: The two take different inputs.
        """
        from shoal_agent.runtime.shadow import Shadow  # noqa: PLC0415 - few devices have one

        return Shadow(active, shadow, share=self._shadow_share)

    def release(self) -> None:
        """Hand the memory of a dropped model back to the system."""
        from shoal_agent.runtime.memory import release_free_memory  # noqa: PLC0415 - as the above

        release_free_memory()

    def variants(self) -> dict[str, str]:
        """Return the path of the variant that answers, by slot."""
        return dict(self._installed)

    def seen(self, slot: str) -> Seen:
        """Return what the slot's present model has done since it was loaded."""
        model = self._slots.get(slot)
        if model is None:
            return Seen()
        totals = model.observer.totals()
        runtime = model.info.runtime
        return Seen(
            predictions=totals.calls + totals.errors,
            errors=totals.errors,
            slow=_slow(totals, runtime.latency_budget_ms),
            rss_bytes=resident_bytes(),
            memory_budget_bytes=runtime.memory_budget_bytes,
            answers=totals.counted,
            nans=totals.nans,
            running_s=model.running_s(),
        )

    def running_s(self, slot: str) -> float:
        """Return for how long the oldest call of the slot's present model is under way, seconds."""
        model = self._slots.get(slot)
        return 0.0 if model is None else model.running_s()

    def cut_off(self, slot: str) -> bool:
        """End the calls of the slot's present model that are under way; it answers none any more.

        Returns:
            Whether it was not cut off before.
        """
        model = self._slots.get(slot)
        if model is None or model.engine.is_cut_off:
            return False
        model.engine.cut_off()
        return True

    def cut_off_replaced(self, longest_s: float) -> float:
        """End calls of models that answer no more, and return for how long the oldest of all theirs is under way.

        Args:
            longest_s: Seconds that a call may take.
        """
        return self._slots.cut_off_replaced(longest_s)


def engines(slots: SlotTable) -> dict[str, dict[str, Any]]:
    """Return what runs each slot's model: ``providers``, ``fallback`` (why not the wanted ones), ``batching``."""
    models = [(slot, model) for slot in slots.names() if (model := slots.get(slot)) is not None]
    return {slot: _engine(model) for slot, model in models}


def _engine(model: LoadedModel) -> dict[str, Any]:
    batching = model.batching
    return {
        "providers": list(model.engine.providers),
        "fallback": model.fallback or None,
        "batching": None if batching is None else {"max_rows": batching.max_rows},
    }


def _slow(totals: Totals, budget_ms: float | None) -> int:
    """Return the calls in cells of latency that lie wholly above the budget for a call's average rows."""
    if budget_ms is None or not totals.calls:
        return 0
    allowed_us = budget_ms * 1000 * max(totals.rows / totals.calls, 1.0)
    return int(totals.latency[1 + bisect_left(LATENCY_EDGES_US, allowed_us) :].sum())
