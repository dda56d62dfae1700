"""A file's rows in the device's statistics: one window of them goes into the spool, which the next `run` sends.

Only while no agent runs on the state folder, because a spool has one writer. Rows of a job that fails are not counted.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal_agent.adapters.identity import FolderLock
from shoal_agent.adapters.spare_spool import open_spool
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.runtime.windows import WindowClock
from shoal_agent.settings import load_settings
from shoal_agent.updating.messages import Messages
from shoal_agent.updating.window_spool import WindowSpool


@contextmanager
def counted(folder: Path, slot: str, model: LoadedModel) -> Iterator[None]:
    """Count what the model answers meanwhile, if all goes well.

    Args:
        folder: The state folder.
        slot: In which the model is active.
        model: Whose predictions to count.

    Raises:
        StateInUseError: An agent runs on the folder.
    """
    settings = load_settings(state=folder)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        spool = open_spool(
            folder / "spool.db",
            budget_bytes=settings.spool_bytes,
            new_epoch=lambda: secrets.token_hex(8),
            clock=time.time,
            chance=random.random,
        )
        try:
            messages = Messages(epoch=spool.epoch, boot=spool.boot, clock=time.time, first=spool.first)
            slots = SlotTable()
            slots.install(slot, model)
            windows = WindowClock(slots, WindowSpool(spool, messages, stored=lambda: None), window_s=settings.window_s)
            yield
            windows.close_all()
        finally:
            spool.close()
    finally:
        lock.release()
