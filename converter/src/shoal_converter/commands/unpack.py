"""`shoal-convert unpack`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shoal_converter.bundle import Bundle
from shoal_converter.errors import OutputExistsError
from shoal_protocol.bundle.layout import safe_path


def run(bundle: Bundle, folder: Path) -> Iterator[Path]:
    """Write the manifest and every file that it names; yields their paths.

    Raises:
        OutputExistsError: The folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not empty", hint="choose a new folder by -o")
    for path, content in {"manifest.json": bundle.manifest_raw, "config.json": bundle.config, **bundle.files}.items():
        target = folder / safe_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        yield target
