"""Run one benchmark by its name, or all of them: ``python benchmarks/run.py [name|all]``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {
    "device", "frame", "http_load", "http_peer", "installed", "models", "peers", "profile_peers", "quality_peers",
    "run", "two_samples",
}  # fmt: skip
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in PARTS)


def main(wanted: str) -> int:
    """Run it; answer an exit code."""
    sys.path.append(sys.path.pop(0))  # this folder last: a benchmark may be named like a module of the standard library
    if wanted != "all" and wanted not in NAMES:
        print(f"there is no benchmark {wanted!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in NAMES if wanted == "all" else [wanted]:
        print(f"\n{name}: {(HERE / f'{name}.py').read_text().split(chr(34) * 3)[1].strip().splitlines()[0]}")
        runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all"))
