"""How the agent writes its log: one line an event on standard error, for people, for programs or for the journal."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def set_up_log(level: str, form: str = "text", *, to_journal: bool = False) -> None:
    """Let the whole process log so from now on.

    Args:
        level: One of `LEVELS`.
        form: One of `FORMATS`.
        to_journal: Standard error goes to systemd's journal, which keeps times itself and reads priorities.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else JournalLines() if to_journal else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonLines(logging.Formatter):
    """One JSON object a line: ``at`` (RFC 3339), ``level``, ``logger``, ``thread``, ``message``, and ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        import json  # noqa: PLC0415 - 1 ms that a start without such lines should not pay

        at = dt.datetime.fromtimestamp(record.created, tz=dt.UTC).isoformat(timespec="milliseconds")
        line = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class JournalLines(logging.Formatter):
    """Text with the priority before each line, as sd-daemon(3) has it; a traceback's lines carry it too."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        priority = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(priority + line for line in super().format(record).splitlines())
