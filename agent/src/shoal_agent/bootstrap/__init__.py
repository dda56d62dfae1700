"""The composition root: from a state folder and settings to the parts of an agent, connected.

The only place where adapters are chosen. Everything can be replaced by an `Overrides`, which is how tests and the demo
run many agents, or unreliable ones, in one process.
"""

from shoal_agent.bootstrap.assembly import Assembly, assemble
from shoal_agent.bootstrap.base import Overrides

__all__ = ["Assembly", "Overrides", "assemble"]
