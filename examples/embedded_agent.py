"""A program that carries the agent: it reads rows as JSON lines and answers each with what the active model says.

    python examples/embedded_agent.py --state /var/lib/reader --slot quality < rows.jsonl
    python examples/embedded_agent.py --bundle quality-1.4.0.tar < rows.jsonl

With a state folder (see `shoal-agent join`) updates arrive while it runs; with a bundle there is no server at all.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal_agent import Agent
from shoal_agent.errors import NoModelError
from shoal_agent.runtime.bundle_files import open_bundle
from shoal_agent.runtime.errors import InputError
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotHandle, SlotTable
from shoal_protocol.errors import ShoalError


@contextmanager
def opened(state: Path | None, bundle: Path | None, slot: str) -> Iterator[SlotHandle]:
    """Give a handle that answers from whatever model is active at the moment of each call."""
    if bundle is not None:
        slots = SlotTable()
        slots.install(slot, LoadedModel.load(open_bundle(bundle)))
        yield slots.model(slot)
    elif state is not None:
        with Agent(state) as agent:
            yield agent.model(slot)


def answer(model: SlotHandle, line: str) -> dict[str, object]:
    """Answer one row; whatever goes wrong with it is an answer too, and the program goes on."""
    try:
        prediction = model.predict_rows([json.loads(line)])
    except json.JSONDecodeError as error:
        return {"error": f"no JSON: {error}"}
    except InputError as error:
        return {"error": error.message, "faults": [fault.as_json() for fault in error.faults]}
    except NoModelError as error:
        return {"error": error.message}
    outputs = {name: array[:1].tolist()[0] for name, array in prediction.items()}
    return {"outputs": outputs, "bundle": prediction.bundle, "digest": prediction.digest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--state", type=Path, help="the state folder of a device that has joined")
    source.add_argument("--bundle", type=Path, help="a bundle, served without a server")
    parser.add_argument("--slot", default="quality")
    given = parser.parse_args()
    try:
        with opened(given.state, given.bundle, given.slot) as model:
            for line in sys.stdin:
                print(json.dumps(answer(model, line)), flush=True)
    except ShoalError as error:  # the folder belongs to no device, another agent uses it, the bundle is damaged, …
        sys.exit(f"{error.message}\n  {error.hint}".rstrip())


if __name__ == "__main__":
    main()
