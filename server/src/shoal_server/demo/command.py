"""`shoal-server demo`: the options of the show, and its ending."""

from __future__ import annotations

import os
import signal
import sys
import time

import click

from shoal_protocol.errors import LocalError


@click.command()
@click.option("--headless", is_flag=True, help="End after the last chapter instead of keeping the dashboard open.")
@click.option("--assert", "asserting", is_flag=True, help="Print PASS or FAIL for each story, exit 1 if one failed.")
@click.option("--devices", default=30, show_default=True, type=click.IntRange(9, 300), help="Size of the fleet.")
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Where the server listens."
)
def demo(*, headless: bool, asserting: bool, devices: int, listen: str) -> None:
    """Show the main job end to end, on real data, in about two minutes.

    Trains three digit readers, starts a server and a fleet of cameras that run the real agent, rolls a release out by
    stages, lets fog drift over one site, and stops a bad release at its canary stage by its predictions.

    Example: shoal-server demo --headless --assert
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported by an agent or the converter
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # also when started in the background by a script
        signal.signal(number, signal.default_int_handler)
    _check_parts()
    from shoal_server.demo.narrator import Narrator  # noqa: PLC0415 - heavy
    from shoal_server.demo.stage import Stage  # noqa: PLC0415 - as above
    from shoal_server.demo.story import Story  # noqa: PLC0415 - as above

    narrator = Narrator()
    failed = 0
    try:
        narrator.say("starting the server")
        with Stage(listen) as stage:
            story = Story(stage, narrator, devices=devices, asserting=asserting)
            failed = story.tell()
            if not headless and stage.fleet is not None:
                story.invite()
                while True:
                    time.sleep(3600)
    except KeyboardInterrupt:
        narrator.say("ending: the devices say good-bye, the server stops, the folder goes")
    sys.exit(1 if failed else 0)


def _check_parts() -> None:
    try:
        import shoal_agent  # noqa: F401, PLC0415 - only whether it is there
        import shoal_converter  # noqa: F401, PLC0415 - as above
    except ImportError as error:
        raise LocalError(
            f"the demo needs the agent and the converter: {error}",
            hint="run `make demo` in a clone, or install the wheels of both beside the server's",
        ) from error
