"""Where closed windows go: into the spool, with labels taken along, and what can't be stored counted and told.

Owns the step from the label book to the spool. The two have no common transaction: each message that takes labels gets
a mark of its own, which the book notes before and the spool stores with it, so that at any later time, also after a cut
between the two, the spool can be asked whether the labels of a mark are on their way.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from shoal_agent.domain.coarsening import Span
from shoal_agent.errors import LabelBookError, SpoolError
from shoal_agent.ports import LabelBook, Shed, Spool
from shoal_agent.updating.messages import Messages
from shoal_protocol.errors import ContentError, ShoalError
from shoal_protocol.mqtt.topics import Up

if TYPE_CHECKING:
    from shoal_agent.runtime.windows import ClosedWindow

_log = logging.getLogger(__name__)


class WindowSpool:
    """Where closed windows go: encoded once and stored; merged, when the spool is full, until they are first sent.

    Args:
        spool: Keeps them.
        messages: Gives the head of the message and the events about losses.
        stored: Called after each.
        labels: What is taken along in the messages; none: nothing.
    """

    def __init__(
        self, spool: Spool, messages: Messages, *, stored: Callable[[], None], labels: LabelBook | None = None
    ) -> None:
        self._spool = spool
        self._messages = messages
        self._stored = stored
        self._labels = labels
        self._shed = Shed(
            tell_lost=lambda seq, dropped, rows: messages.lost(dropped, rows=rows)(seq),
            merge=messages.merged_window,
            tell_merged=lambda seq, parts: messages.merged(parts)(seq),
        )
        self._is_settled = False
        self._settle()
        self.failed = 0
        """Windows that could not be stored since the start."""
        self._told = 0

    def append(self, window: ClosedWindow) -> None:
        """Store one window; what can't be stored is counted, logged and told as soon as that is possible.

        Nothing is raised into the clock of windows.
        """
        try:
            self._append(window)
        except ShoalError as error:
            self.failed += 1
            _log.error("the window of slot %s is lost: %s", window.slot, error)
        try:
            self._spool.make_room(self._shed)
            self._tell_failed()
        except ShoalError as error:
            _log.debug("the spool could not be put in order: %s", error)
        self._stored()

    def _append(self, window: ClosedWindow) -> None:
        """Store the window, with the labels that wait where they find room in its message."""
        self._settle()
        if self._labels is None or not self._labels.waiting:
            self._spool.append(Up.PROFILE, lambda seq: self._messages.window(seq, window), span=_span(window))
            return
        try:
            self._append_with_labels(window, self._labels)
        except ContentError:
            _log.debug("the labels find no room in the window of slot %s", window.slot)
        except LabelBookError as error:
            _log.warning("the labels can't be told now: %s", error)
        else:
            return
        self._spool.append(Up.PROFILE, lambda seq: self._messages.window(seq, window), span=_span(window))

    def _append_with_labels(self, window: ClosedWindow, labels: LabelBook) -> None:
        mark = secrets.randbits(62) + 1

        def build(seq: int) -> bytes:
            return self._messages.window(seq, window, labels.take(mark))

        self._is_settled = False  # until the book knows, too
        try:
            self._spool.append(Up.PROFILE, build, key=_labels_key(mark))
        except BaseException:
            with suppress(LabelBookError):
                labels.put_back(mark)
                self._is_settled = True
            raise
        with suppress(LabelBookError):
            labels.delivered(mark)
            self._is_settled = True

    def _settle(self) -> None:
        """Where the book was not told what became of labels, after a cut or on a full disk, tell it by the spool."""
        if self._labels is None or self._is_settled:
            return
        try:
            for mark in self._labels.taken():
                if self._spool.has_stored(_labels_key(mark)):
                    self._labels.delivered(mark)
                else:
                    self._labels.put_back(mark)
            self._is_settled = True
        except (LabelBookError, SpoolError) as error:
            _log.warning("labels that were under way wait: %s", error)

    def _tell_failed(self) -> None:
        """Tell of windows that never got a number, since the last time that this was possible."""
        count = self.failed - self._told
        if count:
            self._spool.append(Up.EVENT, self._messages.lost([], unnumbered=count))
            self._told += count


def _labels_key(mark: int) -> str:
    return f"labels/{mark}"


def _span(window: ClosedWindow) -> Span | None:
    """Return what a window may be merged by; none: never, because it says more than counts that add up.

    A message that takes labels along has no span either: the book asks for it by the mark that it was stored with.
    """
    if window.shadows:
        return None
    stream = f"{window.slot} {window.digest} {window.spec_hash} {window.rules} {window.variant}"
    return Span(stream, window.start_ms, window.length_ms, round(window.resources.get("rows", window.n)))
