"""Zstandard (RFC 8878), imported when something is first packed or unpacked: an agent answers before that."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any


@cache
def zstandard() -> Any:
    """Return the module: the standard library's from Python 3.14 on, else its backport of the same names."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - see the module's docstring
    else:
        from backports import zstd  # noqa: PLC0415 - likewise
    return zstd
