"""For tests: in-memory fakes of the agent's ports, and a whole simulated server on the loopback interface."""

from shoal_agent.adapters.memory_spool import MemorySpool
from shoal_agent.testing.fakes import (
    FakeClock,
    FakeFetcher,
    FakeHold,
    FakeHooks,
    FakeHost,
    FakeLink,
    FakePreflight,
    FakeTrust,
    MemoryBlobStore,
    MemoryStateFile,
)
from shoal_agent.testing.simulated_server import SimulatedServer

__all__ = [
    "FakeClock",
    "FakeFetcher",
    "FakeHold",
    "FakeHooks",
    "FakeHost",
    "FakeLink",
    "FakePreflight",
    "FakeTrust",
    "MemoryBlobStore",
    "MemorySpool",
    "MemoryStateFile",
    "SimulatedServer",
]
