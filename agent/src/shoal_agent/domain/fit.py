"""Whether a bundle can run on this device at all, by what both say of themselves."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shoal_agent.domain.providers import CPU, Placement, placement
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.manifest import Descriptor, Manifest
from shoal_protocol.bundle.schema import BundleInfo, Variant, parse_bundle_info
from shoal_protocol.errors import ContentError


class DeviceFacts(msgspec.Struct, frozen=True):
    """What this device is.

    Attributes:
        platform: ``linux/amd64``, ``linux/arm64`` …
        onnxruntime: Version that is installed.
        memory_bytes: Physical memory.
        providers: Execution providers that the installed onnxruntime has.
        wanted_providers: That the device is configured to use, the best first; none: as each bundle says.
    """

    platform: str
    onnxruntime: str
    memory_bytes: int
    providers: tuple[str, ...] = (CPU,)
    wanted_providers: tuple[str, ...] | None = None

    def place(self, variant: Variant) -> Placement:
        """Return where a variant would run here."""
        return placement(variant.providers, wanted=self.wanted_providers, available=self.providers)


def variant_for(info: BundleInfo, facts: DeviceFacts) -> Variant | None:
    """Return the first variant that runs here.

    The order is the bundle's: a variant that is faster only where that was measured names that platform, so nothing has
    to be fetched, or timed, to choose. The self-test then holds the choice to the latency budget.
    """
    fitting = (v for v in info.variants if v.platform in {None, facts.platform} and facts.place(v).names)
    return next(fitting, None)


def needed_blobs(manifest: Manifest, read: Callable[[str], bytes], *, facts: DeviceFacts) -> tuple[Descriptor, ...]:
    """Return what this device needs of a bundle: all but the variants that would not answer here.

    Args:
        manifest: The bundle's.
        read: Takes a stored blob's digest; raises FileNotFoundError where it is not stored.
        facts: Of the device.

    Returns:
        Every blob of the bundle, as long as ``bundle.json`` is not there or can't be read.
    """
    files = manifest.files()
    try:
        info = parse_bundle_info(read(files[BUNDLE_JSON].digest))
    except (KeyError, OSError, ContentError):
        return manifest.blobs()
    chosen = variant_for(info, facts)
    others = {variant.path for variant in info.variants} - ({chosen.path} if chosen is not None else set())
    kept = [layer for path, layer in files.items() if path not in others]
    return (manifest.config, *kept)


def misfits(info: BundleInfo, facts: DeviceFacts, *, platform: str | None = None) -> list[str]:
    """Return in words what does not fit; empty: it can run here.

    Args:
        info: ``bundle.json``.
        facts: Of the device.
        platform: That the signed list restricts the release to.
    """
    faults = []
    if platform is not None and platform != facts.platform:
        faults.append(f"the release is for {platform}, this device is {facts.platform}")
    if variant_for(info, facts) is None:
        faults.append(_no_variant(facts))
    if _numbers(facts.onnxruntime) < _numbers(info.runtime.min_onnxruntime):
        faults.append(f"it needs onnxruntime {info.runtime.min_onnxruntime}, this device has {facts.onnxruntime}")
    budget = info.runtime.memory_budget_bytes or 0
    if facts.memory_bytes and budget > facts.memory_bytes:
        faults.append(f"it needs {budget} bytes of memory, this device has {facts.memory_bytes}")
    return faults


def _no_variant(facts: DeviceFacts) -> str:
    has = f"the onnxruntime here has {', '.join(facts.providers)}"
    if facts.wanted_providers is None:
        return f"no variant runs on {facts.platform}; {has}"
    return f"no variant runs on {facts.platform} with providers = {', '.join(facts.wanted_providers)}; {has}"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, enough to order releases."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
