"""`shoal-convert unpack`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shoal_converter.bundle import OMS, Bundle
from shoal_converter.errors import OutputExistsError
from shoal_protocol.bundle.layout import safe_path

OMS_PATH = "attestations/oms.sig"
"""Where an unpacked bundle's OpenSSF Model Signing signature lies; it covers every other file."""


def run(bundle: Bundle, folder: Path) -> Iterator[Path]:
    """Write the manifest, every file that it names, and an OMS signature if there is one; yields their paths.

    Raises:
        OutputExistsError: The folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not empty", hint="choose a new folder by -o")
    signature = {OMS_PATH: bundle.statements[OMS]} if OMS in bundle.statements else {}
    for path, content in {**bundle.unpacked(), **signature}.items():
        target = folder / safe_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        yield target
