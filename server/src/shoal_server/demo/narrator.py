"""How the show is told: colour on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Narrator:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    def chapter(self, number: int, title: str) -> None:
        """Begin a chapter."""
        self._console.print(f"\n[bold cyan]{number}  {title}[/]")

    def say(self, text: str) -> None:
        """Tell one thing."""
        elapsed = time.monotonic() - self._began
        self._console.print(f"[dim]{elapsed:6.1f} s[/]  {text}")

    def verdict(self, name: str, why: str | None) -> None:
        """Print whether a story came true, on a line of its own for programs."""
        if why is None:
            self._console.print(f"[bold green]PASS[/] {name}")
        else:
            self._console.print(f"[bold red]FAIL[/] {name}: {why}", markup=True)

    def block(self, lines: list[str]) -> None:
        """Print lines as they are."""
        for line in lines:
            self._console.print(line, markup=False)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show that something takes time."""
        if not sys.stdout.isatty():
            self.say(f"{text} …")
            yield
            return
        with self._console.status(text):
            yield
