"""What the command line writes: progress on standard error, results on standard output.

Owns the look: bars and tables by rich on a terminal, plain lines everywhere else. Text from files is stripped of
control characters, so that no bundle can steer a terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from shoal_protocol.errors import ShoalError

if TYPE_CHECKING:
    from rich.console import Console


class Terminal:
    """One run's output.

    Args:
        json_wanted: Results are JSON, and nothing else is on standard output.
        quiet: No progress.
    """

    def __init__(self, *, json_wanted: bool, quiet: bool = False) -> None:
        self.json_wanted = json_wanted
        self._quiet = quiet
        self._above_bar: Console | None = None

    def progress(self, line: str) -> None:
        """Say what is being done; above the bar where one is shown."""
        if self._above_bar is not None:
            self._above_bar.print(plain(f"· {line}"), markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            click.echo(click.style("· ", fg="cyan") + plain(line), err=True)

    @contextmanager
    def bar(self, title: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """Show bytes that go out; yields what to call with each number of bytes, those already there included."""
        with self.growing_bar(title) as count:
            yield lambda number: count(number, total_bytes)

    @contextmanager
    def growing_bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show bytes whose number is learnt on the way; yields what to call with those that came, and the total."""
        if self._quiet or not sys.stderr.isatty():
            yield lambda _, __: None
            return
        from rich.console import Console  # noqa: PLC0415 - only on a terminal
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(title, total=None)
            self._above_bar = shown.console
            try:
                yield lambda number, total: shown.update(task, advance=number, total=total)
            finally:
                self._above_bar = None

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print names with their values."""
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            click.echo(click.style(f"{name:<{width}}", bold=True) + f"  {plain(value)}")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under headers."""
        cells = [[plain(cell) for cell in row] for row in rows]
        widths = [max(len(row[at]) for row in [list(headers), *cells]) for at in range(len(headers))]
        click.echo(click.style("  ".join(h.ljust(w) for h, w in zip(headers, widths, strict=True)).rstrip(), bold=True))
        for row in cells:
            click.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())

    def json(self, value: Any) -> None:
        """Print a result for programs."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))

    def error(self, error: ShoalError) -> None:
        """Say what went wrong and what to do."""
        click.echo(click.style("error: ", fg="red", bold=True) + plain(error.message), err=True)
        if error.hint:
            click.echo(click.style("  try: ", fg="yellow") + plain(error.hint), err=True)


def plain(text: str) -> str:
    """Return text without control characters, save spaces in place of line breaks."""
    return "".join(
        " " if char in "\n\t" else char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc"
    )
