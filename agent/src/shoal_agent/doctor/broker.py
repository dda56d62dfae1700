"""The broker's checks: a login, a round trip, and the proof that the broker keeps this device to its own topics.

The proof tries what a thief of the credentials would try and looks at what comes back: it listens to the topics on
which all devices speak, where this device's own presence is kept and would come at once, and it speaks on a topic
on which only the server may, to which it listens itself. Nothing may come. Both leave no trace: neither message is
retained, and no part of the system knows their kind.

A broker takes one connection of a device, so a connection of the doctor ends a running agent's; that is only done
when asked for.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_agent.adapters.identity import Identity
from shoal_agent.adapters.mqtt_dialect import Version
from shoal_agent.adapters.mqtt_line import Broker, broker_at
from shoal_agent.adapters.tls import client_context
from shoal_agent.doctor.findings import Finding, ok, skipped, wrong
from shoal_protocol.mqtt.topics import PREFIX, SERVER_STATUS, UP_FILTER, down_filter

if TYPE_CHECKING:
    from paho.mqtt.client import Client

CHECKS = ("broker_login", "broker_round_trip", "broker_acl")
WAIT_S = 5.0
GRACE_S = 1.0
"""How long a message that must not come is waited for, after the broker has acknowledged it."""

_HOLE = "the broker's access rules are not Shoal's: compare them with deploy/mosquitto/acl"


@dataclass
class _Line:
    """What came over one connection, in the order it came."""

    client: Client
    events: queue.Queue[tuple[str, Any]] = field(default_factory=queue.Queue)

    def wait_for(self, kind: str, *, seconds: float) -> Any:
        """Return the next event of a kind; other kinds stay seen.

        Raises:
            TimeoutError: None came.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                found, value = self.events.get(timeout=left)
                if found == kind:
                    return value
        raise TimeoutError(kind)


def broker(
    identity: Identity, *, ca_file: Path | None, client: tuple[Path, Path] | None = None, version: Version = Version.V5
) -> list[Finding]:
    """Log in as the device and check what it can and can't do there.

    Args:
        identity: Of the device.
        ca_file: Authority to trust instead of the system's.
        client: Certificate and key of this device, for a broker that asks for them.
        version: Of MQTT; a broker that doesn't know it is spoken to in the older one.
    """
    if identity.mqtt_url is None:
        return [skipped(check, "this server has no broker; all goes over HTTP") for check in CHECKS]
    try:
        tls = partial(client_context, ca_file=ca_file, certificate_time=None, client=client)
        with _connected(identity, broker_at(identity.mqtt_url, tls=tls), version) as line:
            refused = line.wait_for("connected", seconds=WAIT_S)
            if refused == "Unsupported protocol version" and version is Version.V5:
                return broker(identity, ca_file=ca_file, client=client, version=Version.V311)
            if refused:
                advice = "does the broker read the password file that the server writes? see deploy/mosquitto"
                return _stopped(wrong(CHECKS[0], f"the broker refuses {identity.device}: {refused}", advice))
            login = ok(CHECKS[0], f"the broker takes the login of {identity.device}, by {version}")
            return [login, *_rules(line, identity.device)]
    except TimeoutError:
        return _stopped(wrong(CHECKS[0], f"no answer within {WAIT_S:g} s", "is this port a broker's?"))
    except OSError as error:
        return _stopped(wrong(CHECKS[0], f"no connection: {error.strerror or error}", "is the broker up?"))


def _stopped(finding: Finding) -> list[Finding]:
    return [finding, *(skipped(check, "without a login") for check in CHECKS[1:])]


def _rules(line: _Line, device: str) -> list[Finding]:
    """Check first what must come, then that nothing else does."""
    line.client.subscribe([(SERVER_STATUS, 1), (down_filter(device), 1)])
    try:
        granted = line.wait_for("granted", seconds=WAIT_S)
        if not all(granted):
            return _unheard("the broker refuses this device its own topics")
        while line.wait_for("message", seconds=WAIT_S) != SERVER_STATUS:
            pass
    except TimeoutError:
        return _unheard(f"the server's status did not come within {WAIT_S:g} s")
    line.client.publish(f"{PREFIX}/{device}/up/doctor", b"doctor", qos=1)  # no kind that anybody knows
    try:
        refused = line.wait_for("published", seconds=WAIT_S)
    except TimeoutError:
        refused = "no acknowledgement"
    if refused:  # only MQTT 5 can tell that it was not allowed
        return _unheard(f"the broker does not take what this device says: {refused}")
    round_trip = ok(CHECKS[1], "the server's status came, and what this device says is taken")
    line.client.subscribe(UP_FILTER, qos=1)
    forbidden = f"{PREFIX}/{device}/down/doctor-{secrets.token_hex(4)}"
    line.client.publish(forbidden, b"doctor", qos=1)
    came = _strangers(line, device, forbidden)
    if came:
        told = f"it delivered what this device must not have: {', '.join(sorted(came)[:3])}"
        return [round_trip, wrong(CHECKS[2], told, _HOLE)]
    told = "others' topics stayed silent, and a forged message of the server was not delivered"
    return [round_trip, ok(CHECKS[2], told)]


def _unheard(why: str) -> list[Finding]:
    advice = "is the server connected to this broker, and does the broker read the rules that the server writes?"
    return [wrong(CHECKS[1], why, advice), skipped(CHECKS[2], "without a delivery, silence proves nothing")]


def _strangers(line: _Line, device: str, forbidden: str) -> set[str]:
    """Collect the topics of messages that must not come; a broker may also end the connection, or never acknowledge."""
    mine = down_filter(device).removesuffix("#")
    came: set[str] = set()
    with suppress(TimeoutError):
        line.wait_for("granted", seconds=WAIT_S)
    deadline = time.monotonic() + GRACE_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            topic = line.wait_for("message", seconds=left)
        except TimeoutError:
            break
        if topic == forbidden or not (topic == SERVER_STATUS or topic.startswith(mine)):
            came.add(topic)
    return came


@contextmanager
def _connected(identity: Identity, place: Broker, version: Version) -> Iterator[_Line]:
    from paho.mqtt.client import Client  # noqa: PLC0415 - only this check needs it
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # noqa: PLC0415 - likewise

    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=identity.device,
        protocol=MQTTProtocolVersion(int(version)),
        reconnect_on_failure=False,
        transport="tcp" if place.path is None else "websockets",
    )
    line = _Line(client)
    client.username_pw_set(identity.device, identity.broker_secret)
    if place.path is not None:
        client.ws_set_options(path=place.path)
    if place.tls is not None:
        client.tls_set_context(place.tls())
    client.on_connect = lambda _c, _d, _f, reason, _p: line.events.put(
        ("connected", str(reason) if reason.is_failure else "")
    )
    client.on_subscribe = lambda _c, _d, _m, reasons, _p: line.events.put(
        ("granted", [not reason.is_failure for reason in reasons])
    )
    client.on_publish = lambda _c, _d, _m, reason, _p: line.events.put(
        ("published", str(reason) if reason.is_failure else "")
    )
    client.on_message = lambda _c, _d, message: line.events.put(("message", message.topic))
    client.connect(place.host, place.port, keepalive=60)
    thread = threading.Thread(target=client.loop_forever, name="doctor-mqtt", daemon=True)
    thread.start()
    try:
        yield line
    finally:
        client.disconnect()
        thread.join(timeout=WAIT_S)
