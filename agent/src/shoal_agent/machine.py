"""What this machine is, what its onnxruntime can do, and how the agent is configured to use both.

Light on purpose: `run --bundle` needs it without any of the parts that talk to a server.
"""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shoal_agent.domain.fit import DeviceFacts
from shoal_protocol.maintenance import Instant

if TYPE_CHECKING:
    from shoal_agent.runtime.batching import Batching
    from shoal_agent.settings import Settings

_PLATFORMS = {"x86_64": "amd64", "aarch64": "arm64"}
_ONNXRUNTIMES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn", "onnxruntime-migraphx",
    "onnxruntime-rocm", "onnxruntime-cann", "onnxruntime-vitisai",
)  # fmt: skip
"""Distributions that bring the package onnxruntime, each with execution providers of its own."""


def device_facts() -> DeviceFacts:
    """Return what this machine is, without importing onnxruntime."""
    return _machine(next(filter(None, map(installed_version, _ONNXRUNTIMES)), ""))


def week_instant(now_s: float) -> Instant:
    """Return where in the week a time is, on this machine's wall and in UTC; follows a change of its time zone.

    Args:
        now_s: Seconds since the epoch.
    """
    time.tzset()
    return Instant(local_s=_week_s(time.localtime(now_s)), utc_s=_week_s(time.gmtime(now_s)))


def _week_s(moment: time.struct_time) -> int:
    return ((moment.tm_wday * 24 + moment.tm_hour) * 60 + moment.tm_min) * 60 + min(moment.tm_sec, 59)


def known_facts(settings: Settings) -> DeviceFacts:
    """Return what this machine is, what its onnxruntime can run on, and what it is configured to use."""
    from shoal_agent.runtime.engine import available_providers, import_onnxruntime  # noqa: PLC0415 - it comes with it

    facts = _machine(str(import_onnxruntime().__version__))
    return replace(facts, providers=available_providers(), wanted_providers=settings.providers)


def batching_of(settings: Settings) -> Batching | None:
    """Return how far calls at the same time are answered together; none: not at all."""
    from shoal_agent.runtime.batching import Batching  # noqa: PLC0415 - numpy comes with it

    rows = settings.batching_max_rows
    return None if rows is None or rows < 2 else Batching(rows, settings.batching_max_delay_ms / 1000)


@cache
def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution; empty when it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - 1 MB with the email package

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _machine(onnxruntime: str) -> DeviceFacts:
    machine = platform.machine()
    return DeviceFacts(
        platform=f"{platform.system().lower()}/{_PLATFORMS.get(machine, machine)}",
        onnxruntime=onnxruntime,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
