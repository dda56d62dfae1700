"""The composition root: settings in, a whole server out.

Owns which part is given which other, the order in which parts start and stop, and the list of routes that are open to
everybody.
"""

from shoal_server.bootstrap.http import PUBLIC, ROUTERS, build_app
from shoal_server.bootstrap.parts import build_services, registry_needs
from shoal_server.bootstrap.server import Server
from shoal_server.bootstrap.workers import build_loops, collect_garbage

__all__ = [
    "PUBLIC",
    "ROUTERS",
    "Server",
    "build_app",
    "build_loops",
    "build_services",
    "collect_garbage",
    "registry_needs",
]
