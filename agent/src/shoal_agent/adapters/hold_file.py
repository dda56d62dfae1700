"""The hold on disk: ``hold.json`` in the state folder, written by the command line and read by the running agent.

A file needs no running agent, and survives a power cut. One that can't be read holds: whoever wrote it wanted that.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shoal_agent.adapters.durable import put, sync_folder
from shoal_agent.domain.hold import Hold

NAME = "hold.json"


class HoldFile:
    """The hold of one device.

    Args:
        folder: The state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def load(self) -> Hold | None:
        """Return what was said last; none: nothing."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Hold)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            return Hold(since_ms=0, reason=f"{self._path} can't be read: {error}")

    def save(self, hold: Hold) -> None:
        """Let updates wait.

        Raises:
            OSError: It can't be written.
        """
        put(self._path, msgspec.json.encode(hold))

    def remove(self) -> bool:
        """Let updates go on; tells whether there was a hold.

        Raises:
            OSError: It can't be removed.
        """
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        sync_folder(self._path.parent)
        return True
