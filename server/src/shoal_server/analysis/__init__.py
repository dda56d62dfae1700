"""Recorded windows for analysts: counts as numpy arrays, tables, and replay under other settings.

    from shoal_server.analysis import fetch_windows, read_windows

    recording = read_windows("windows.jsonl")            # what `shoalctl drift export` wrote
    recording = fetch_windows("https://shoal.example", slot="quality", token=...)
    windows = recording.windows()                        # of its only bundle; else name one

Importing loads numpy and the protocol, nothing of the server; pandas, Polars and pyarrow only when asked for.
"""

from shoal_server.analysis.fetch import fetch_windows
from shoal_server.analysis.files import read_windows, write_windows
from shoal_server.analysis.recording import Recording
from shoal_server.analysis.windows import Quantile, Windows

__all__ = ["Quantile", "Recording", "Windows", "fetch_windows", "read_windows", "write_windows"]
