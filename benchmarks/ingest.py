# ruff: noqa: E402, PLC0415, PLW1510 - imports follow the path that they need; `check` is in the shared options
"""Taking in windows: MQTT -> decode -> store -> acknowledge after the commit, against paho that only receives.

Processor time per message decides, of all threads of the process that takes in: the machine's other core is busy with
the broker and the devices, and waiting for the disk is no work. What a broker holds back is drained by each side in
turn, the same messages; the embedded endpoint gets them from devices in another process.
"""

from __future__ import annotations

import argparse
import gc
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
# Behind everything else: `http.py` in this folder would otherwise be taken for the standard library's.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE] + [str(HERE), str(HERE.parent / "tests")]

import numpy as np

from fixtures_broker import Mosquitto, eventually, mosquitto_of_our_own
from frame import Row, compared, run
from shoal_protocol.mqtt.packet_codec import PacketReader, encode_packet
from shoal_protocol.mqtt.packets import Connect, Publish
from shoal_protocol.mqtt.topics import UP_FILTER, Up, up
from shoal_protocol.profile.codec import ProfileMessage, encode_counts, encode_profile
from shoal_protocol.profile.grid import fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_server.link.broker import BrokerLink
from shoal_server.link.endpoint import EmbeddedLink
from shoal_server.link.verifiers import verifier_line
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.ingest import Ingest

SECRET = "s" * 43
DEVICES = 50
FEATURES = 20


def payloads(count: int, epoch: str) -> Iterator[bytes]:
    """Windows of a model with twenty features, about 1 KB each, numbered from 1."""
    randomness = np.random.default_rng(0)
    values = randomness.normal(size=(2000, FEATURES)).astype(np.float32)
    scores = randomness.uniform(size=(2000, 3)).astype(np.float32)
    streams = [Stream(f"f{at}", "input", fit_numeric(values[:, at]), "x", at) for at in range(FEATURES)]
    streams.append(Stream("confidence", "output", unit_interval_grid(), "scores", None, "row_max"))
    spec = ProfileSpec(tuple(streams))
    profile = summarise(spec, {"x": values[:500], "scores": scores[:500]})
    body = encode_counts(profile.cells, profile.moments)
    for seq in range(1, count + 1):
        yield encode_profile(
            ProfileMessage(
                epoch=epoch,
                boot=1,
                seq=seq,
                sent_at=1_800_000_000_000,
                slot="quality",
                digest="sha256:" + "ab" * 32,
                spec_hash=spec.hash,
                start_ms=1_800_000_000_000,
                length_ms=300_000,
                n=500,
                errors=0,
                latency=(0, 0, 0, 0, 20, 300, 170, 10),
                resources={"cpu_s": 1.5, "rss_bytes": 1e8},
                body=body,
            )
        )


def send(port: int, count: int, epoch: str) -> None:
    """Be `DEVICES` devices that each send their share and wait until all of it is acknowledged."""
    share = list(payloads(count // DEVICES, epoch))
    threads = [threading.Thread(target=_send_as, args=(port, f"d{at}", share)) for at in range(DEVICES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send_as(port: int, name: str, share: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(encode_packet(Connect(client_id=name, username=name, password=SECRET.encode(), keep_alive_s=120)))
        reader, expected, topic = PacketReader(), len(share) + 1, up(name, Up.PROFILE)
        packets = [encode_packet(Publish(topic, raw, 1, packet_id=at)) for at, raw in enumerate(share, 1)]
        threading.Thread(target=line.sendall, args=(b"".join(packets),)).start()
        while expected:
            data = line.recv(65536)
            if not data:
                raise ConnectionError(f"{name}: the connection was closed")
            reader.feed(data)
            expected -= sum(1 for _ in reader)


def sender(port: int, count: int, epoch: str) -> subprocess.Popen[bytes]:
    """Send from another process."""
    return subprocess.Popen([sys.executable, __file__, "--send", str(port), str(count), epoch])


class Measured:
    """Processor and wall time of a block."""

    def __enter__(self) -> Self:
        gc.collect()
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = time.process_time() - self._cpu
        self.wall_s = time.perf_counter() - self._wall


def receive_only(broker: Mosquitto, count: int) -> Measured:
    """The floor: paho receives what the broker has kept, acknowledges by itself, and does nothing with it."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    received, finished = [0], threading.Event()

    def on_message(_client: Any, _data: Any, _message: Any) -> None:
        received[0] += 1
        if received[0] == count:
            finished.set()

    client = Client(CallbackAPIVersion.VERSION2, client_id=broker.server_user, clean_session=False)
    client.username_pw_set(broker.server_user, broker.server_secret)
    client.on_message = on_message
    with Measured() as measured:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        finished.wait()
    client.disconnect()
    client.loop_stop()
    return measured


def take_in(broker: Mosquitto, database: Database, count: int) -> Measured:
    """The whole way, of what the broker has kept."""
    link = BrokerLink(broker.url, clock=time.time)
    ingest = Ingest(link, database, {}, lambda: 1_800_000_400.0)
    with Measured() as measured:
        ingest.start()
        eventually(lambda: ingest.status().counts["windows"] == count, within_s=120, every_s=0.05)
    ingest.stop()
    return measured


def take_in_embedded(database: Database, count: int, epoch: str) -> Measured:
    """The whole way, from devices connected to the server itself."""
    link = EmbeddedLink("127.0.0.1", 0, clock=time.time)
    link.sync_credentials(credentials())
    ingest = Ingest(link, database, {}, lambda: 1_800_000_400.0)
    ingest.start()
    devices = sender(link.port, count, epoch)
    eventually(lambda: link.devices > 0, within_s=60)
    with Measured() as measured:
        eventually(lambda: ingest.status().counts["windows"] == count, within_s=120, every_s=0.05)
        devices.wait()
    ingest.stop()
    return measured


def credentials() -> list[tuple[str, str]]:
    return [(f"d{at}", verifier_line(SECRET, salt=b"0123456789ab")) for at in range(DEVICES)]


def fill(broker: Mosquitto, count: int, epoch: str) -> None:
    """Have the broker keep messages for the server, which is away."""
    devices = sender(broker.port, count, epoch)
    assert devices.wait() == 0


def subscribe_and_leave(broker: Mosquitto) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    done = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id=broker.server_user, clean_session=False)
    client.username_pw_set(broker.server_user, broker.server_secret)
    client.on_connect = lambda *_: client.subscribe(UP_FILTER, qos=1)
    client.on_subscribe = lambda *_: done.set()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    done.wait()
    client.disconnect()
    client.loop_stop()


def rows(count: int, repeats: int) -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
    decoding = list(payloads(1000, "0" * 16))
    floors: list[float] = []
    waits: dict[str, list[Measured]] = {"sqlite": [], "embedded": [], "postgres": []}

    def measure(kind: str, database: Database, work: Callable[[str], Measured], at: int) -> None:
        measured = work(f"{at:015x}{len(kind) % 16:x}")
        waits[kind].append(measured)
        database.close()

    try:
        with mosquitto_of_our_own() as broker, postgres_of_our_own() as postgres:
            broker.credentials().sync(credentials())
            subscribe_and_leave(broker)
            for at in range(repeats):
                fill(broker, count, f"{at:016x}")
                floors.append(receive_only(broker, count).cpu_s)
                for kind in ("sqlite", "postgres"):
                    if kind == "postgres" and postgres is None:
                        continue
                    database = opened(postgres(f"bench{at}") if kind == "postgres" else f"sqlite:///{folder}/{at}.db")
                    fill(broker, count, f"{at + 100:016x}")
                    measure(kind, database, lambda _epoch: take_in(broker, database, count), at)  # noqa: B023
                database = opened(f"sqlite:///{folder}/e{at}.db")
                measure("embedded", database, lambda epoch: take_in_embedded(database, count, epoch), at)  # noqa: B023
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    names = {
        "sqlite": "mosquitto, paho, SQLite: messages per core-second",
        "postgres": "mosquitto, paho, PostgreSQL: messages per core-second (ours, not the database's)",
        "embedded": "embedded endpoint, SQLite: messages per core-second",
    }
    for kind, measured in waits.items():
        if measured:
            ratio = statistics.median(floor / one.cpu_s for floor, one in zip(floors, measured, strict=True))
            rate = count / statistics.median(one.cpu_s for one in measured)
            floor = count / statistics.median(floors)
            target = None if kind == "postgres" else 0.6
            yield compared(names[kind], rate, "1/s", floor=floor, ratio=ratio, at_least=target)
            wall = count / statistics.median(one.wall_s for one in measured)
            yield Row(names[kind].split(":")[0] + ": messages per second of the clock", wall, "1/s")
    start = time.process_time()
    for _ in range(5):
        for raw in decoding:
            arrival("d", Up.PROFILE, raw)
    yield Row("of it: decoding and checking one message", (time.process_time() - start) / 5000 * 1e6, "us")


@contextmanager
def postgres_of_our_own() -> Iterator[Callable[[str], str] | None]:
    """Run a PostgreSQL in a temporary folder; gives a function from a name to a new database's URL, or none."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not binaries:
        print("PostgreSQL is not installed: its rows are left out", file=sys.stderr)
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="shoal-pg-", dir="/tmp"))
    who: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    control = [binaries[-1] / "pg_ctl", "-D", folder / "data", "-w"]
    try:
        subprocess.run([binaries[-1] / "initdb", "-D", folder / "data", "-U", "shoal", "-A", "trust"], **quiet, **who)
        listen = f"-c listen_addresses= -c unix_socket_directories={folder}"
        subprocess.run([*control, "-o", listen, "start"], **quiet, **who)

        def create(name: str) -> str:
            command = [binaries[-1] / "createdb", "-h", folder, "-U", "shoal", name]
            subprocess.run(command, **quiet)
            return f"postgresql://shoal@/{name}?host={folder}"

        yield create
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet, **who)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def opened(url: str) -> Database:
    import shoal_server.telemetry.tables  # noqa: F401  (its tables are to be made)

    database = Database(url)
    database.create_all()
    return database


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--send", nargs=3, metavar=("PORT", "COUNT", "EPOCH"), help="be the devices")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options, _ = parser.parse_known_args()  # run.py's own argument is among them
    if options.send:
        send(int(options.send[0]), int(options.send[1]), options.send[2])
    else:
        run("ingest", rows(options.messages, options.repeats))
