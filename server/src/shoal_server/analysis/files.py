"""Recordings in files: JSON lines as they were streamed, or npz, a tenth of the size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np

from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.recording import (
    Header,
    RecordedWindow,
    encode_recording,
    parse_header,
    parse_windows,
)
from shoal_server.analysis.recording import Recording
from shoal_server.analysis.windows import Windows

_NUMBERS = ("seq", "length_ms", "n", "errors", "cells", "moments", "latency")
_ALL = ("device", "start", "received_at", *_NUMBERS)


def read_windows(path: str | Path) -> Recording:
    """Read what `shoalctl drift export` wrote.

    Args:
        path: A ``.jsonl`` or ``.npz`` file.

    Raises:
        CallerError: There is no such file.
        ContentError: It is no recording, or not a whole one.
    """
    path = Path(path)
    if not path.is_file():
        raise CallerError(f"there is no file {path}", hint="shoalctl drift export SLOT --output windows.jsonl")
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return _read_npz(path)
        file.seek(0)
        return parse_lines(iter(file))


def parse_lines(lines: Iterator[bytes]) -> Recording:
    """Return the recording of a header and its windows; raises `ContentError`."""
    return Recording.of(parse_header(next(lines, b"")), parse_windows(lines))


def write_windows(recording: Recording, path: str | Path) -> None:
    """Write a recording as ``.npz``, or as JSON lines under any other name.

    Raises:
        CallerError: The file can't be written.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npz":
            with path.open("wb") as file:
                file.write(_npz(recording))
            return
        with path.open("wb") as file:
            file.writelines(encode_recording(recording.header, _recorded(recording)))
    except OSError as error:
        raise CallerError(f"{path} can't be written: {error.strerror}", hint="does its folder exist?") from error


def _recorded(recording: Recording) -> Iterator[RecordedWindow]:
    for digest, windows in recording.by_digest.items():
        for at in range(len(windows)):
            yield RecordedWindow(
                device=str(windows.device[at]),
                digest=digest,
                seq=int(windows.seq[at]),
                start_ms=int(windows.start[at].astype(np.int64)),
                length_ms=int(windows.length_ms[at]),
                n=int(windows.n[at]),
                errors=int(windows.errors[at]),
                received_at=float(windows.received_at[at]),
                spec_hash=windows.reference.spec.hash,
                cells=windows.cells[at].tolist(),
                moments=[(first, second) for first, second in windows.moments[at].tolist()],
                latency=windows.latency[at].tolist(),
            )


def _npz(recording: Recording) -> bytes:
    arrays: dict[str, Any] = {"header": np.frombuffer(msgspec.json.encode(recording.header), np.uint8)}
    for at, (digest, windows) in enumerate(recording.by_digest.items()):
        arrays[f"digest_{at}"] = np.array(digest)
        arrays |= {f"{name}_{at}": getattr(windows, name) for name in _ALL}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _read_npz(path: Path) -> Recording:
    try:
        with np.load(path, allow_pickle=False) as loaded:
            header = parse_header(loaded["header"].tobytes())
            found = {}
            for at in range(len(header.bundles)):
                digest = str(loaded[f"digest_{at}"])
                found[digest] = _checked({name: loaded[f"{name}_{at}"] for name in _ALL}, digest, header)
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise ContentError(
            f"{path.name} holds no recorded windows: {error}", hint="shoalctl drift export SLOT --output windows.npz"
        ) from error
    return Recording(header, found)


def _checked(arrays: dict[str, Any], digest: str, header: Header) -> Windows:
    bundle = header.bundles[digest]
    reference = bundle.parsed()
    windows = Windows(digest=digest, name=bundle.name, reference=reference, facts=header.devices, **arrays)
    lengths = {len(arrays[name]) for name in _ALL}
    if len(lengths) > 1 or windows.cells.shape != (len(windows), reference.spec.size):
        raise ValueError(f"the arrays of {bundle.name} don't fit each other")
    return windows
