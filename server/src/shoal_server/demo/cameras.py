"""The show's fleet: cameras that read digits, each running the real agent, all in this process.

Owns what the cameras see: real images in a random order, a little different for each lens, and fog. One thread feeds
all cameras; the agents' own threads do the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shoal_server.demo.models import SLOT, Images

if TYPE_CHECKING:
    from shoal_agent import Agent

SITES = ("bern", "basel", "chur")
_TICK_S = 0.1
_ROWS = 5


@dataclass
class Camera:
    """One device: its agent, where it stands, and what its lens does to an image."""

    name: str
    site: str
    agent: Agent
    random: np.random.Generator
    gain: float = 1.0
    foggy: bool = False
    answered: int = 0
    refused: int = 0

    def look(self, images: Images) -> Images:
        """Return a few images as this camera's lens shows them, float32 of shape (rows, 64)."""
        seen = images[self.random.integers(len(images), size=_ROWS)] * self.gain
        if self.foggy:  # less contrast, more haze
            seen = seen * 0.55 + 4.5
        shown: Images = np.clip(seen, 0, 16).astype(np.float32)
        return shown

    def read(self, images: Images) -> None:
        """Answer one batch with whatever model is active; no model is no fault of the camera's."""
        if SLOT not in self.agent.slots.names():
            return
        self.agent.model(SLOT).predict({"x": self.look(images)})
        self.answered += _ROWS


@dataclass
class CameraFleet:
    """All cameras and the thread that shows them images."""

    cameras: Sequence[Camera]
    images: Images
    faults: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to feed images, or go on."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._feed, name="cameras", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Show no images for a while; the agents go on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None

    def drained(self) -> bool:
        """Tell whether no camera has a window that the server has not acknowledged."""
        return all(camera.agent.status()["spool"]["windows"] == 0 for camera in self.cameras)

    def fog(self, site: str, *, on: bool) -> None:
        """Let fog drift over one site, or lift it."""
        for camera in self.cameras:
            if camera.site == site:
                camera.foggy = on

    def stop(self) -> None:
        """Stop feeding and stop every agent."""
        self.pause()
        stoppers = [threading.Thread(target=camera.agent.stop) for camera in self.cameras]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(timeout=20)

    def _feed(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + _TICK_S, time.monotonic())
            for camera in self.cameras:
                try:
                    camera.read(self.images)
                except Exception as error:  # noqa: BLE001 - one camera's fault must not blind the others; the show fails by it
                    camera.refused += 1
                    if len(self.faults) < 20:
                        self.faults.append(f"{camera.name}: {type(error).__name__}: {error}")
