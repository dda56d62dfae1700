"""The other side, whole: trust metadata, registry and device API of a server, over real loopback HTTP.

A test changes it between requests like an operator or an attacker would: publish a release, assign it, swap a blob, cut
downloads short, go back to older metadata. What devices send is kept and acknowledged.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, Targets, Timestamp

from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.codings import DCZ, DICTIONARY_HEADER, IDENTITY, ZSTD, Encoder, parse_dictionary_header
from shoal_protocol.bundle.manifest import encode_manifest
from shoal_protocol.canonical import parse_digest, sha256_digest
from shoal_protocol.mqtt.messages import Ack, UpMessage, encode_message, parse_message
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.parcel import ABOUT, DESIRED, TRUST, About, blob_member
from shoal_protocol.samples import SAMPLES_PATH, SampleBatch, parse_samples
from shoal_protocol.trust.assignment import Assignment, SlotTarget, sign_assignment
from shoal_protocol.trust.join_token import JoinToken
from shoal_protocol.trust.receipt import sign_receipt
from shoal_protocol.trust.targets import release_target, set_restrictions

_LIFETIME = dt.timedelta(days=90)
_ROLES = ("root", "targets", "snapshot", "timestamp")


@dataclass
class Faults:
    """What goes wrong with downloads.

    Attributes:
        cut_after: Each blob's answer breaks off after so many bytes; none: never.
        swapped: Content that is sent instead, by digest.
        status: Status of every answer but the first path's; none: as it should be.
        no_ranges: Ranges are ignored.
    """

    cut_after: int | None = None
    swapped: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    no_ranges: bool = False


class SimulatedServer:
    """A server for one device; use it as a context manager.

    Attributes:
        device: The device's id.
        faults: What goes wrong.
        messages: What the device sent, parsed, in order.
        requests: (method, path, range) of every request.
        samples: Batches of sampled rows that came.
        acknowledge: Whether messages are acknowledged.
        codes: Whether blobs are sent in the smallest form that the device takes.
        refuse: Tells which messages count as malformed.
    """

    def __init__(self, *, device: str = "dev-1", clock: Any = time.time) -> None:
        self.device = device
        self.joins_as = "accepted"
        self.faults = Faults()
        self.messages: list[tuple[Up, UpMessage]] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.samples: list[SampleBatch] = []
        self.acknowledge = True
        self.codes = False
        self.refuse: Callable[[Up, UpMessage], bool] = lambda _kind, _message: False
        self.desired: bytes | None = None
        self.generation = 0
        self.slots: dict[str, SlotTarget] = {}
        self.trust_files: dict[str, bytes] = {}
        self._clock = clock
        self._signers = {role: CryptoSigner.generate_ecdsa() for role in _ROLES}
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}
        self._received: set[int] = set()
        self._root, self._targets = Root(expires=self._expiry()), Targets(expires=self._expiry())
        self._snapshot, self._timestamp = Snapshot(expires=self._expiry()), Timestamp(expires=self._expiry())
        for role in _ROLES:
            self._root.roles[role] = Role([], 1)
            self._root.add_key(self._signers[role].public_key, role)
        self._sign("1.root.json", self._root, "root")
        self.publish()
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def join_token(self) -> str:
        """A token that pins this server's root."""
        root = sha256_digest(self.trust_files["1.root.json"])
        return str(JoinToken(id="t1", secret="s" * 43, root_digest=root, targets_version=self._targets.version))

    # What an operator or a pipeline does --------------------------------------------------------------------------

    def add_bundle(self, files: Mapping[str, bytes], *, config: bytes = b"{}") -> str:
        """Store a bundle, unsigned; return its digest."""
        raw = encode_manifest(build_manifest(files, config=config))
        for data in (*files.values(), config):
            self._blobs[sha256_digest(data)] = data
        digest = sha256_digest(raw)
        self._manifests[digest] = raw
        return digest

    def release(self, digest: str, model: str, version: str, *, counter: int | None = None) -> str:
        """Sign a stored bundle as a release; return its digest."""
        number = counter or len(self._targets.targets) + 1
        entry = release_target(model, version, self._manifests[digest], counter=number)
        self._targets.targets[entry.path] = entry
        self.publish()
        return digest

    def restrict(self, *, deny: tuple[str, ...] = (), minimum: Mapping[str, int] | None = None) -> None:
        """Sign a deny list and least counters."""
        set_restrictions(self._targets, deny=deny, minimum=minimum)
        self.publish()

    def rotate(self, *roles: str) -> None:
        """Replace the keys of some roles by a new root, and sign everything anew."""
        old = self._signers["root"]
        for role in roles:
            self._signers[role] = CryptoSigner.generate_ecdsa()
            self._root.roles[role] = Role([], 1)
            self._root.add_key(self._signers[role].public_key, role)
        self._root.version += 1
        metadata = Metadata(self._root)
        for signer in {id(s): s for s in (old, self._signers["root"])}.values():
            metadata.sign(signer, append=True)
        self.trust_files[f"{self._root.version}.root.json"] = metadata.to_bytes()
        self.publish()

    def publish(self, *, expires: dt.datetime | None = None) -> None:
        """Sign all online metadata anew."""
        self._targets.version += bool(self.trust_files.get("timestamp.json"))
        self._snapshot.version = self._timestamp.version = self._targets.version
        self._targets.expires = expires or self._expiry()
        self._sign(f"{self._targets.version}.targets.json", self._targets, "targets")
        self._snapshot.meta["targets.json"] = MetaFile(self._targets.version)
        self._sign(f"{self._snapshot.version}.snapshot.json", self._snapshot, "snapshot")
        self._timestamp.snapshot_meta = MetaFile(self._snapshot.version)
        self._sign("timestamp.json", self._timestamp, "timestamp")

    def assign(self, slot: str, digest: str | None, *, attempt: int = 0, name: str | None = None, **more: Any) -> bytes:
        """Want a bundle in a slot (`more`: its shadow or sampling); return the signed document."""
        self.slots[slot] = SlotTarget(digest=digest, name=name, attempt=attempt, **more)
        self.generation += 1
        self.desired = self.sign(generation=self.generation)
        return self.desired

    def parcel(self) -> dict[str, bytes]:
        """Return the members of a parcel with the present wishes, by name; a test writes them, or others, as a tar."""
        about = About(
            device=self.device,
            generation=self.generation,
            made_at=int(self._clock() * 1000),
            expires=int(self._clock() * 1000) + 14 * 86_400_000,
            slots={slot: target.name or target.digest or "nothing" for slot, target in self.slots.items()},
        )
        documents = {f"{TRUST}{name}": raw for name, raw in self.trust_files.items()}
        blobs = {blob_member(digest): raw for digest, raw in {**self._manifests, **self._blobs}.items()}
        return {ABOUT: msgspec.json.encode(about), DESIRED: self.desired or b"", **documents, **blobs}

    def sign(self, *, generation: int, device: str | None = None, role: str = "timestamp", age_s: float = 0.0) -> bytes:
        """Return a document over the present wishes, signed by a role's key, as old as asked (below 0: ahead)."""
        now_ms = int((self._clock() - age_s) * 1000)
        assignment = Assignment(
            device=device or self.device,
            generation=generation,
            slots=dict(self.slots),
            issued=now_ms,
            expires=now_ms + 14 * 86_400_000,
        )
        return sign_assignment(assignment, self._signers[role])

    def receipt(self, *, device: str | None = None, through: int = 0) -> bytes:
        """Return a signed receipt for a device's mail, as a parcel may hold one."""
        return sign_receipt(device or self.device, Ack(epoch="0" * 16, through=through), self._signers["timestamp"])

    def of(self, kind: Up) -> list[Any]:
        """Return the messages of a kind that came."""
        return [message for came, message in list(self.messages) if came is kind]

    def last_report(self, slot: str) -> Any:
        """Return the newest report about a slot; none: there is none."""
        reports = [m for m in self.of(Up.REPORTED) if slot in m.slots]
        return max(reports, key=lambda m: m.order).slots[slot] if reports else None

    def forget_messages(self) -> None:
        """Forget what devices have sent, as if none had ever sent anything."""
        self.messages.clear()
        self._received.clear()

    # The routes --------------------------------------------------------------------------------------------------

    def get(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Answer a GET."""
        match path.partition("?")[0].strip("/").split("/"):
            case ["trust", file] if file in self.trust_files:
                return 200, {}, self.trust_files[file]
            case ["v2", _model, "manifests", digest] if digest in self._manifests:
                return 200, {}, self.faults.swapped.get(digest, self._manifests[digest])
            case ["v2", _model, "blobs", digest] if digest in self._blobs:
                return self._ranged(digest, headers)
            case ["api", "v1", "device", "challenge"]:
                return 200, {}, b'{"challenge": "1.00.00"}'
            case ["api", "v1", "device", "desired"] if self.desired is not None:
                etag = f'"{sha256_digest(self.desired)}"'
                if headers.get("If-None-Match") == etag:
                    return 304, {"ETag": etag}, b""
                return 200, {"ETag": etag}, self.desired
        return 404, {}, b"{}"

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer a POST."""
        if path == "/api/v1/device/enrol":
            asked = json.loads(body).get("name")
            self.device = asked or self.device
            reply = {"device": self.device, "state": self.joins_as, "secret": "x" * 43, "mqtt_url": None, "poll_s": 0.2}
            return 201, {}, json.dumps(reply).encode()
        if path == SAMPLES_PATH:
            self.samples.append(parse_samples(body))
            return 200, {}, b"{}"
        if path != "/api/v1/device/messages":
            return 404, {}, b"{}"
        epoch, rejected = "", []
        for index, entry in enumerate(json.loads(body)):
            kind = Up(entry["kind"])
            message = parse_message(kind, base64.b64decode(entry["payload"]))
            if self.refuse(kind, message):
                rejected.append({"index": index, "fault": "malformed"})
                continue
            self.messages.append((kind, message))
            if kind in {Up.PROFILE, Up.EVENT}:
                self._received.add(message.seq)
                epoch = message.epoch
        acks = []
        if epoch and self.acknowledge:
            received = tuple((seq, seq) for seq in sorted(self._received))
            acks = [json.loads(encode_message(Ack(epoch=epoch, through=0, ranges=received)))]
        return 200, {}, json.dumps({"acks": acks, "rejected": rejected}).encode()

    def _ranged(self, digest: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        data = self.faults.swapped.get(digest, self._blobs[digest])
        coding, data = self._coded(data, headers) if self.codes else (IDENTITY, data)
        etag = f'"{sha256_digest(data)}"'
        found = {"ETag": etag, **({} if coding == IDENTITY else {"Content-Encoding": coding})}
        asked = headers.get("Range")
        if asked and headers.get("If-Range") == etag and not self.faults.no_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return 206, {**found, "Content-Range": span}, data[start:]
        return 200, found, data

    def _coded(self, data: bytes, headers: Mapping[str, str]) -> tuple[str, bytes]:
        """Return the smallest form that a request takes, and its coding."""
        base = parse_dictionary_header(headers.get(DICTIONARY_HEADER, ""))
        taken = headers.get("Accept-Encoding", "").split(", ")
        forms = [(IDENTITY, data)]
        if ZSTD in taken:
            forms.append((ZSTD, _encoded(Encoder(len(data), level=3), data)))
        if DCZ in taken and base in self._blobs:
            dictionary = (parse_digest(base), self._blobs[base])
            forms.append((DCZ, _encoded(Encoder(len(data), level=3, dictionary=dictionary), data)))
        return min(forms, key=lambda form: len(form[1]))

    def _sign(self, name: str, signed: Any, role: str) -> None:
        metadata = Metadata(signed)
        metadata.sign(self._signers[role])
        self.trust_files[name] = metadata.to_bytes()

    def _expiry(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(int(self._clock()), tz=dt.UTC) + _LIFETIME


def _encoded(encoder: Encoder, data: bytes) -> bytes:
    return encoder.feed(data) + encoder.finish()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing: devices that are killed in the middle of a request are what these tests are about."""


def _handler(server: SimulatedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            server.requests.append(("GET", self.path, self.headers.get("Range")))
            status, headers, body = server.get(self.path, dict(self.headers.items()))
            self._answer(status, headers, body, cut=server.faults.cut_after if "/blobs/" in self.path else None)

        def do_POST(self) -> None:
            server.requests.append(("POST", self.path, None))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(*server.post(self.path, body))

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def _answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: int | None = None) -> None:
            self.send_response(server.faults.status or status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if cut is not None and cut < len(body):
                self.wfile.write(body[:cut])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

    return Handler
