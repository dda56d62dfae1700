"""One whole server: the order in which its parts start and stop.

No part keeps state outside of the server that it belongs to, so several servers can run in one process.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from fastapi import FastAPI

from shoal_server.access import people
from shoal_server.access.secrets import Passwords
from shoal_server.bootstrap.http import build_app
from shoal_server.bootstrap.parts import build_services, build_tls
from shoal_server.bootstrap.workers import build_loops, settle_rollouts
from shoal_server.errors import StartError
from shoal_server.fleet import store as fleet_store
from shoal_server.link.addresses import reached_at
from shoal_server.link.server_tls import ServerTls
from shoal_server.loops import Loop
from shoal_server.runtime_file import DataFolder, Runtime
from shoal_server.services import Services
from shoal_server.storage.database import Clock, Database
from shoal_server.storage.lease import DatabaseLease, lease_of
from shoal_server.storage.settings import EMBEDDED, Settings, split_address
from shoal_server.web.http_server import HttpServer, bind, url_of
from shoal_server.webhooks import queue as delivery_queue

LEASE_S = 5.0
"""How often a server looks whether it still is the one of its database."""

_log = logging.getLogger(__name__)


class Server:
    """One whole server.

    Args:
        settings: what it was told.
        clock: the wall clock, other in tests.
    """

    def __init__(self, settings: Settings, *, clock: Clock = time.time) -> None:
        settings.check()
        self.settings = settings
        self.first_password: str | None = None
        """The admin's password when this start made it; shown once, kept nowhere."""
        self._clock = clock
        self._folder = DataFolder(settings.data)
        self._undo: list[Callable[[], None]] = []
        self._runtime: Runtime | None = None
        self._services: Services | None = None
        self._http: HttpServer | None = None
        self._tls: ServerTls | None = None
        self._lease: DatabaseLease | None = None

    @property
    def runtime(self) -> Runtime:
        """Where it is reached; only while it runs."""
        assert self._runtime is not None, "the server isn't running"
        return self._runtime

    @property
    def services(self) -> Services:
        """Its parts, for programs that run it inside themselves; only while it runs."""
        assert self._services is not None, "the server isn't running"
        return self._services

    @property
    def alive(self) -> bool:
        """Whether it answers requests, and may."""
        return self._http is not None and self._http.alive and not self.fault

    @property
    def fault(self) -> str:
        """Why it must end, other than by its HTTP server's own end; empty: it need not."""
        return "" if self._lease is None else self._lease.lost

    def start(self) -> None:
        """Start every part; returns when requests are answered and `runtime.json` says where.

        Raises:
            StartError: this machine or these settings don't allow it; nothing is left running.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started, the last first."""
        while self._undo:
            undo = self._undo.pop()
            try:
                undo()
            except Exception:  # noqa: BLE001 - the other parts must still be stopped
                _log.exception("a part did not stop as it should")
        self._runtime = self._http = self._services = None

    def _start(self) -> None:
        self._folder.hold()
        self._undo.append(self._folder.release)
        listener = bind(self.settings.host, self.settings.port)
        self._undo.append(listener.close)
        database = Database(self.settings.database_url)
        self._undo.append(database.close)
        database.reach()
        lease = self._lease = lease_of(database)
        lease.take()
        self._undo.append(lease.release)
        database.upgrade()
        passwords = Passwords()
        tls = self._tls = build_tls(self.settings, self._clock)
        url = url_of(listener, scheme="http" if tls is None else "https")
        program = self._services = build_services(self._settled(), database, self._clock, url=url, tls=tls)
        self._undo.append(program.blobs.close)
        program.settle_rollouts = partial(settle_rollouts, program)
        # After what settings can spoil, since the password is shown by the start that makes it and never again.
        self.first_password = people.ensure_admin(database, passwords, now=self._clock())
        loops = build_loops(program, tls=tls)
        loops.append(Loop("lease", lease.keep, every_s=LEASE_S, clock=self._clock, signals=program.signals))
        app = build_app(program, loops)
        app.state.passwords = passwords
        with database.write() as session:
            fleet_store.forget_presence(session)
            delivery_queue.forget_claims(session)
        program.ingest.start()  # with the link, which hands it what devices send
        self._undo.append(program.ingest.stop)
        for loop in loops:
            loop.start()
            self._undo.append(loop.stop)
        self._start_http(app, listener, program)

    def _start_http(self, app: FastAPI, listener: socket.socket, program: Services) -> None:
        self._http = HttpServer(app, listener, tls=None if self._tls is None else self._tls.context)
        self._undo.append(self._http.stop)
        self._undo.append(program.signals.close)  # first of all, so that open event streams end
        self._http.start()
        ca_file = None if self._tls is None else self._tls.ca_file
        broker_url = reached_at(program.link.url, urlsplit(program.url).hostname or "")
        self._runtime = Runtime(program.url, broker_url, os.getpid(), None if ca_file is None else str(ca_file))
        self._folder.write_runtime(self._runtime)
        if self.settings.broker == EMBEDDED:
            self._folder.keep_mqtt_port(urlsplit(program.link.url).port or 0)

    def _settled(self) -> Settings:
        """Return the settings with the MQTT port of the last start, since joined devices know that one."""
        host, port = split_address(self.settings.mqtt_listen)
        kept = self._folder.kept_mqtt_port()
        if port != 0 or not kept:
            return self.settings
        try:
            bind(host, kept).close()
        except StartError:
            _log.warning("MQTT port %d is taken now: devices that joined before reach this server by HTTP only", kept)
            return self.settings
        return replace(self.settings, mqtt_listen=f"{host}:{kept}")
