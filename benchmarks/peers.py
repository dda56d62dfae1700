"""Programs that nobody here wrote, each in an environment of its own, for benchmarks that compare with them.

They pin old libraries, so they don't fit into one environment with Shoal, nor with each other. The first run of a
benchmark that asks for one installs it into ``.venv-bench/<name>`` (a minute, some hundred megabytes, ignored by git);
where that fails the benchmark says why and leaves the peer out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / ".venv-bench"
REQUIREMENTS = {
    "datasketches": ("datasketches==5.2.0", "numpy"),
    "whylogs": ("whylogs==1.6.4", "pandas<3", "numpy<2"),
    "nannyml": ("nannyml==0.13.1", "statsmodels"),
    "river": ("river==0.26.1",),
}
_INSTALLING_S = 900


class PeerMissingError(Exception):
    """A peer can't be had here; the message says why, in one line."""


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, made now if it isn't there.

    Args:
        peer: One of `REQUIREMENTS`.

    Raises:
        PeerMissingError: It doesn't install.
    """
    home = FOLDER / peer
    python, done = home / "bin" / "python", home / ".done"
    wanted = "\n".join(REQUIREMENTS[peer])
    if done.exists() and done.read_text() == wanted:
        return python
    print(f"  installing {peer} into {home.name} (once) ...", file=sys.stderr, flush=True)
    venv.create(home, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *REQUIREMENTS[peer]]
    try:
        told = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=_INSTALLING_S)
    except subprocess.TimeoutExpired as error:
        raise PeerMissingError(f"{peer} did not install within {_INSTALLING_S} s") from error
    if told.returncode:
        errors = [line for line in told.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise PeerMissingError(f"{peer} does not install here: {errors[-1]:.150}")
    done.write_text(wanted)
    return python


def ask(peer: str, script: str, *arguments: str, given: Any = None) -> Any:
    """Run a script in a peer's environment; its last line of output is JSON.

    Args:
        peer: One of `REQUIREMENTS`.
        script: Python source.
        arguments: Of the command line, such as paths of arrays.
        given: Goes to its standard input as JSON.

    Raises:
        PeerMissingError: It doesn't install or doesn't run.
    """
    done = subprocess.run(
        [str(python_of(peer)), "-c", script, *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no words"])[-1]
        raise PeerMissingError(f"{peer} does not run here: {last:.150}")
    return json.loads(done.stdout.strip().splitlines()[-1])
