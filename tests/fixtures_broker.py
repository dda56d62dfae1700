"""The fixtures `free_port` and `mosquitto`, and devices that speak to any broker by paho."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "mosquitto" / "mosquitto.conf"
_SHARED = "/var/lib/shoal/mosquitto"
_LISTENER = "listener 1883 127.0.0.1"


def eventually(true: Callable[[], Any], *, within_s: float = 60.0, what: str = "", every_s: float = 0.005) -> Any:
    """Wait until something is true and return it."""
    until = time.monotonic() + within_s
    while not (value := true()):
        assert time.monotonic() < until, f"not within {within_s:g} s: {what or true}"
        time.sleep(every_s)
    return value


def find_free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    """A port on loopback that nobody listens on."""
    return find_free_port()


class Mosquitto:
    """A mosquitto of the test's own, with the shipped configuration, in a folder of its own.

    Attributes:
        folder: Where its password and ACL files are; `MosquittoCredentials` writes there.
        url: With the server's user and secret, as `--broker` takes it.
    """

    server_user = "server"
    server_secret = "the-server's-own-secret"

    def __init__(self, folder: Path, who: dict[str, Any]) -> None:
        self.folder = folder
        self.port = find_free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._who = who
        text = CONFIGURATION.read_text()
        assert _SHARED in text
        assert _LISTENER in text
        text = text.replace(_SHARED, str(folder)).replace(_LISTENER, f"listener {self.port} 127.0.0.1")
        (folder / "mosquitto.conf").write_text(text)

    @property
    def url(self) -> str:
        return f"mqtt://{self.server_user}:{self.server_secret.replace(chr(39), '%27')}@127.0.0.1:{self.port}"

    def credentials(self) -> Any:
        """Return the adapter that writes this broker's files."""
        from shoal_server.link.mosquitto import MosquittoCredentials

        server = (self.server_user, self.server_secret)
        return MosquittoCredentials(self.folder, address=("127.0.0.1", self.port), server=server)

    def start(self) -> None:
        """Start and wait until it listens; the files must have been written once."""
        if not (self.folder / "passwords").exists():
            self.credentials().prepare()
        with (self.folder / "log").open("ab") as log:
            command = ["mosquitto", "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._who)
        eventually(self._listens, what=f"mosquitto listens; its log: {(self.folder / 'log').read_text()[-2000:]}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it in good order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


@contextmanager
def mosquitto_of_our_own() -> Iterator[Mosquitto]:
    """Run a mosquitto in a temporary folder, as an unprivileged user."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-mosquitto-", dir="/tmp"))
    who: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    broker = Mosquitto(folder, who)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """A running mosquitto."""
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    with mosquitto_of_our_own() as broker:
        yield broker


class PahoDevice:
    """A device that speaks MQTT by paho, to the embedded endpoint or to a broker."""

    def __init__(self, url: str, name: str, secret: str, **options: Any) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.received: list[tuple[str, bytes, bool]] = []
        self.acknowledged: set[int] = set()
        self.answer: str | None = None
        self.is_connected = False
        self.granted: list[bool] = []
        client_id = options.get("client_id", name)
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=False)
        self.client.username_pw_set(name, secret)
        if "will" in options:
            topic, payload = options["will"]
            self.client.will_set(topic, payload, qos=1)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = lambda _c, _d, m: self.received.append((m.topic, bytes(m.payload), m.retain))
        self.client.on_publish = lambda _c, _d, mid, _r, _p: self.acknowledged.add(mid)
        self.client.on_subscribe = lambda _c, _d, _m, codes, _p: self.granted.append(not codes[0].is_failure)
        address = urlsplit(url)
        self.client.connect(address.hostname or "", address.port or 1883, options.get("keep_alive_s", 30))
        self.client.loop_start()
        eventually(lambda: self.answer is not None, what="an answer to CONNECT")

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.is_connected = not reason.is_failure
        self.answer = str(reason)

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.is_connected = False
        self.answer = self.answer or str(reason)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> int:
        return int(self.client.publish(topic, payload, qos=qos, retain=retain).mid)

    def subscribe(self, topic_filter: str) -> bool:
        """Subscribe and tell whether the broker says that it is granted."""
        self.client.subscribe(topic_filter, qos=1)
        eventually(lambda: self.granted, what="an answer to SUBSCRIBE")
        return self.granted.pop()

    def drop(self) -> None:
        """Lose the connection without a goodbye."""
        line = self.client.socket()
        if line is not None:
            line.shutdown(socket.SHUT_RDWR)
        eventually(lambda: not self.is_connected, what="the connection's end")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
