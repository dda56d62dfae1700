"""What an agent that has joined a server does before its first prediction: trust and network come after it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import subprocess
import sys

import msgspec

import shoal_agent
import shoal_protocol

JUDGING = {"cryptography", "securesystemslib", "tuf"}
HEAVY = {*JUDGING, "email", "paho", "ssl", "urllib3"}
UNUSED = {"backports.zstd", "compression.zstd", "json", "rfc8785", "shutil", "subprocess", "tomllib"}
"""Each takes one to three milliseconds, and only later steps use it."""

ANSWERED = """
import sys
import msgspec, numpy
from dataclasses import is_dataclass
from shoal_agent import Agent
from shoal_agent.bootstrap import Overrides
with Agent(sys.argv[1], {"listen": "none"}, overrides=Overrides(link=lambda _identity: None)) as agent:
    said = agent.model("quality").predict({"x": numpy.ones((1, 2), numpy.float32)})["y"]
    ours = [module for name, module in list(sys.modules.items()) if name.startswith("shoal_")]
    made = {f"{it.__module__}.{it.__name__}" for m in ours for it in vars(m).values()
            if isinstance(it, type) and is_dataclass(it)}
    told = {"said": float(said[0, 0]), "modules": [*sys.modules], "dataclasses": sorted(made)}
    print(msgspec.json.encode(told).decode())
"""


def test_the_stored_model_answers_before_trust_and_network_are_imported(world):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent():
        world.committed(digest)
    run = [sys.executable, "-P", "-c", ANSWERED, str(world.state)]
    told = json.loads(subprocess.run(run, check=True, capture_output=True, text=True, timeout=120).stdout)
    assert told["said"] == 3.0
    assert HEAVY & {name.partition(".")[0] for name in told["modules"]} == set()
    assert UNUSED & {*told["modules"]} == set()
    assert "shoal_agent.adapters.download" not in told["modules"]
    assert told["dataclasses"] == []  # each takes half a millisecond, a msgspec struct a fiftieth of it (docs/adr)


AT_WORK = """
import json, sys, time
from shoal_agent import Agent
settings = {"listen": "none", "window_s": 0.5, "poll_s": 0.1, "trial.predictions": 1, "trial.seconds": 0.1}
with Agent(sys.argv[1], settings) as agent:
    until = time.monotonic() + 100
    while time.monotonic() < until and agent.status()["slots"].get("quality", {}).get("active") is None:
        time.sleep(0.05)
    print(json.dumps({"active": agent.status()["slots"]["quality"]["active"], "modules": [*sys.modules]}))
"""


def test_an_agent_that_has_installed_a_release_has_judged_nothing_itself(world):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    run = [sys.executable, "-P", "-c", AT_WORK, str(world.state)]
    told = json.loads(subprocess.run(run, check=True, capture_output=True, text=True, timeout=180).stdout)
    assert told["active"] == digest
    assert JUDGING & {name.partition(".")[0] for name in told["modules"]} == set()  # 10 MB (docs/adr)


def test_no_struct_has_a_default_that_was_meant_for_a_dataclass():
    wrong = []
    for package in (shoal_agent, shoal_protocol):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for kind in vars(importlib.import_module(found.name)).values():
                if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                    defaults = kind.__struct_defaults__
                    wrong += [f"{kind}" for default in defaults if isinstance(default, dataclasses.Field)]
    assert wrong == []
