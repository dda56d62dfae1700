"""`shoalctl device export` and `import`: what somebody carries to a device without a network, and from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from shoal_protocol.errors import ContentError
from shoal_server.ctl.client import segment
from shoal_server.ctl.errors import FileError
from shoal_server.ctl.program import Call, connected


@click.command("export")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="The parcel to write; or as FILE."
)
@connected
def export_parcel(call: Call, *, name: str, file: Path | None, output: Path | None) -> None:
    r"""Write what a device should run into a file, with all that it needs, for `shoal-agent import FILE` there.

    The device verifies it as if it came over the network, and believes it for 14 days.

    \b
    Example:
      shoalctl device export press-4 -o /media/usb/press-4.parcel
    """
    output = _only_one(file, output)
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise FileError(f"{output} can't be written: expected a file in a folder that is there")
    size = _write(call, name, output)
    shown = {"device": name, "file": str(output), "bytes": size}
    call.show(shown, lambda: _print_export(name, output, size))


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@connected
def import_mail(call: Call, *, file: Path) -> None:
    r"""Bring in what `shoal-agent export FILE` wrote at a device: its windows, its events and how it stands.

    Each message counts once, however often it is brought, also when the device sends it itself later.

    \b
    Example:
      shoalctl device import /media/usb/press-4.mail
    """
    from shoal_protocol.parcel import writer_of  # noqa: PLC0415 - msgspec costs what --help needn't pay

    total: dict[str, int] = {}
    malformed: list[str] = []
    name = ""
    for number, line in enumerate(_lines(file), start=1):
        try:
            name = writer_of(line)
        except ContentError as error:
            raise FileError(f"{file}:{number}: {error.message}") from error
        answer = call.client.post_bytes(f"/api/v1/devices/{segment(name)}/mail", line)
        for kind, count in answer["messages"].items():
            total[kind] = total.get(kind, 0) + count
        malformed += answer["malformed"]
    if not name:
        raise FileError(f"{file} holds no mail: it is empty")
    shown = {
        "device": name,
        "windows": total.get("profile", 0),
        "events": total.get("event", 0),
        "malformed": malformed,
    }
    call.show(shown, lambda: _print_import(shown))


def _write(call: Call, name: str, output: Path) -> int:
    """Write the parcel beside its place, and move it there once it is whole and on the disk."""
    temporary = output.with_name(f"{output.name}.part")
    size = 0
    try:
        with temporary.open("wb") as file:
            with call.client.pieces("POST", f"/api/v1/devices/{segment(name)}/parcel") as pieces:
                for piece in pieces:
                    size += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    except OSError as error:
        raise FileError(f"{output} can't be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _only_one(file: Path | None, output: Path | None) -> Path:
    """Take the file as `shoal-agent export` does too: as an argument, or by -o."""
    given = {path for path in (file, output) if path is not None}
    if len(given) != 1:
        raise click.UsageError("expected one file to write: NAME FILE, or NAME -o FILE")
    return given.pop()


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        for line in opened:
            if line.strip():
                yield line


def _print_export(name: str, output: Path, size: int) -> None:
    click.echo(f"{output}: {size} bytes for {name}, which believes it for 14 days.")
    click.echo(f"At the device: shoal-agent import {output.name}")


def _print_import(shown: dict[str, Any]) -> None:
    click.echo(f"{shown['device']}: {shown['windows']} windows and {shown['events']} events are stored.")
    for fault in shown["malformed"]:
        click.echo(f"  one is malformed, and only noted: {fault}")
