"""One agent: embeddable in any Python program, and what the command line runs.

    from shoal_agent import Agent
    agent = Agent("/var/lib/shoal-agent")
    agent.start()
    agent.model("quality").predict({"x": rows})

Answering never waits for updating: `start` returns once the stored models answer, before any network. Nothing here is
global; a process may run as many agents as it likes, each on its own state folder.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.adapters.identity import FolderLock
from shoal_agent.bootstrap import Assembly, Overrides, assemble
from shoal_agent.domain.hold import Hold
from shoal_agent.errors import NoModelError, ParcelError, StateFolderError
from shoal_agent.settings import Given, Settings, given_settings, parsed
from shoal_agent.status import live_status, save_snapshot
from shoal_agent.updating.requests import ExportRequest, ImportRequest, RollBackRequest
from shoal_protocol.errors import CallerError

if TYPE_CHECKING:
    from shoal_agent.runtime.feedback import Feedback
    from shoal_agent.runtime.slots import SlotHandle, SlotTable

_STOP_S = 30.0
_log = logging.getLogger(__name__)


class Agent:
    """An agent on a state folder that has joined a server.

    Args:
        state: The state folder.
        settings: A `Settings`, or a mapping of dotted names (``{"window_s": 60}``) that overrides environment and file.
        overrides: Replacements for clock, chance and adapters.
    """

    def __init__(
        self,
        state: str | Path,
        settings: Settings | Mapping[str, Any] | None = None,
        *,
        overrides: Overrides | None = None,
    ) -> None:
        self.folder = Path(state)
        self.settings = settings if isinstance(settings, Settings) else _settings(settings or {}, self.folder)
        self._overrides = overrides or Overrides()
        self._lock = FolderLock(self.folder)
        self._parts: Assembly | None = None
        self._threads: tuple[threading.Thread, ...] = ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Let the stored models answer, then begin to talk to the server in the background.

        Raises:
            NotEnrolledError: The folder belongs to no device yet.
            StateInUseError: Another agent uses the folder.
            StateFolderError: A first start found no room for what it needs; later ones need none.
            CallerError: It runs already.
        """
        if self._parts is not None:
            raise CallerError("this agent runs already")
        self._lock.acquire()
        try:
            parts = assemble(self.folder, self.settings, self._overrides)
            parts.transactions.boot()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                advice = "make room on its disk, or look at its rights"
                raise StateFolderError(f"the agent can't work in {self.folder}: {error}", hint=advice) from error
            raise
        self._parts = parts
        name = parts.identity.device
        self._threads = (
            threading.Thread(target=parts.updater.run, name=f"update-{name}", daemon=True),
            threading.Thread(target=parts.uplink.run, name=f"uplink-{name}", daemon=True),
        )
        for thread in self._threads:
            thread.start()
        parts.sampling.look()
        parts.counting.look()
        parts.uplink.start_link(parts.inbox.put_document)
        parts.rotation.wish()

    def check_free(self) -> None:
        """Look whether this agent could start on its folder.

        Raises:
            StateInUseError: Another agent uses the folder.
            StateFolderError: There is no such folder, or this user may not write into it.
        """
        self._lock.acquire()
        self._lock.release()

    def stop(self) -> None:
        """Close the open windows, say good-bye, and give the starts of trials back; does nothing when not running."""
        parts, self._parts = self._parts, None
        if parts is None:
            return
        parts.inbox.stop()
        parts.http.lines.cut()
        parts.sampling.stop()
        parts.rotation.stop()
        parts.counting.stop()
        parts.uplink.stop()
        for thread in self._threads:
            thread.join(timeout=_STOP_S)
        try:
            parts.transactions.stop()
        finally:  # whatever that met: the open windows are not lost by it
            try:
                parts.uplink.finish()
            finally:
                self._let_go(parts)

    def _let_go(self, parts: Assembly) -> None:
        try:
            save_snapshot(self.folder, live_status(parts, self.settings))
        except OSError as error:  # a full disk is no reason to keep the lock
            _log.warning("the last status could not be left in %s: %s", self.folder, error)
        finally:
            parts.spool.close()
            parts.labels.close()
            parts.http.close()
            self._lock.release()

    @property
    def device(self) -> str:
        """The device's id."""
        return self._running().identity.device

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now."""
        return self._parts is not None and self._parts.uplink.connected

    @property
    def slots(self) -> SlotTable:
        """The slots, for the local HTTP API."""
        return self._running().slots

    def model(self, slot: str) -> SlotHandle:
        """Return a handle that answers from whatever model is active in the slot.

        Args:
            slot: Its name; a slot without a model answers with `NoModelError`, see `SlotHandle.wait`.
        """
        return self._running().slots.model(slot)

    @property
    def labels(self) -> Feedback:
        """What takes labels, for the local HTTP API."""
        return self._running().feedback

    def feedback(self, prediction_id: str, label: object, *, row: int | None = None) -> int:
        """Tell the true label of a prediction, now or days later; only counts of labels ever leave the device.

        Args:
            prediction_id: Of the answer, `Prediction.prediction_id`.
            label: The class as the model names it, or the number that a regression should have said; for an answer of
                many rows a list of one label a row, None where one is not known.
            row: Which row of the answer the label is of, from 0; none: the only one.

        Returns:
            How many labels were new: a label told twice counts once.

        Raises:
            PredictionIdError: This device gave no such id, or the prediction is too old.
            LabelError: The label does not fit the model.
            LocalError: It can't be kept: the disk is full, or too many wait for the server.
        """
        return self._running().feedback.take(prediction_id, label, row=row)

    def status(self) -> dict[str, Any]:
        """Return what ``shoal-agent status --json`` prints."""
        return live_status(self._running(), self.settings)

    def faults(self) -> list[str]:
        """Name the agent's own threads that have ended or hang; empty: all live."""
        parts = self._running()
        ended = [f"the thread {thread.name} has ended" for thread in self._threads if not thread.is_alive()]
        ended += parts.transactions.faults()
        return ended + [fault for pulse in parts.pulses if (fault := pulse.fault()) is not None]

    def roll_back(self, slot: str, *, reason: str = "asked for at the device", timeout_s: float = 60.0) -> None:
        """Go back to the previous model and mark the present one bad until the server's attempt grows.

        Raises:
            NoModelError: There is no previous model.
        """
        request = RollBackRequest(slot=slot, reason=reason)
        self._running().inbox.put_request(request)
        if not request.done.wait(timeout_s):
            raise NoModelError(f"slot {slot!r} did not roll back within {timeout_s:g} s", slot=slot)
        if request.error is not None:
            raise request.error

    def import_parcel(self, path: str | Path, *, timeout_s: float = 600.0) -> dict[str, Any]:
        """Take in what `shoalctl device export` wrote for this device; the slots then go on by themselves.

        Args:
            path: Of the parcel.
            timeout_s: So long to wait for it to be verified and stored.

        Returns:
            ``generation``, ``slots`` (names of what should run), ``expires`` (milliseconds since the epoch),
            ``acknowledged`` (messages of earlier mail that the server has, and that are gone here now), and ``new``:
            whether this device did not have the assignment yet.

        Raises:
            ShoalError: It is refused, with the reason.
            OSError: The disk fails.
        """
        return self._asked(ImportRequest(path=Path(path)), timeout_s)

    def export_mail(self, path: str | Path, *, timeout_s: float = 600.0) -> dict[str, Any]:
        """Write what waits for the server into a file, for `shoalctl device import`; returns counts by kind.

        Raises:
            ShoalError: It can't be noted or signed.
            OSError: It can't be written.
        """
        return self._asked(ExportRequest(path=Path(path)), timeout_s)

    def _asked(self, request: ImportRequest | ExportRequest, timeout_s: float) -> dict[str, Any]:
        self._running().inbox.put_request(request)
        if not request.done.wait(timeout_s):
            raise ParcelError(f"the agent is busy with other things for over {timeout_s:g} s")
        if request.error is not None:
            raise request.error
        return request.told

    def hold(self, *, reason: str = "", until: float | None = None) -> None:
        """Let updates wait; what runs goes on, and a model that fails is still left.

        Args:
            reason: Shown in the status and at the server.
            until: Seconds since the epoch at which the hold ends by itself; none: at `unhold`.
        """
        now_ms = int(self._overrides.clock() * 1000)
        until_ms = None if until is None else int(until * 1000)
        HoldFile(self.folder).save(Hold(since_ms=now_ms, until_ms=until_ms, reason=reason[:300]))

    def unhold(self) -> None:
        """Let updates go on."""
        HoldFile(self.folder).remove()

    def _running(self) -> Assembly:
        if self._parts is None:
            raise CallerError("the agent does not run", hint="call start() first")
        return self._parts


def _settings(given: Mapping[str, Any], state: Path) -> Settings:
    """Put the settings together, those that a program gives before the environment's and the file's."""
    words = {name: Given(value, "this program") for name, value in given.items() if value is not None}
    return parsed(given_settings(state=state) | words)
