"""A repository of The Update Framework that keeps to no rule, to judge a client: any key, version or signature.

Every change of `Repository.signed` is served only once `publish` has signed it. Delegated roles are roles like others.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = ("targets", "snapshot", "timestamp", "root")


class Repository:
    """What is signed now, what was served of it, and who asked.

    Attributes:
        signed: The content of each role, as it will be signed next.
        signers: Of each role, however many.
        published: All versions of each role, as bytes.
        asked: Paths, in order.
        artifacts: Content by target path; may be other than was signed.
        with_hashes: Whether timestamp and snapshot name hashes and lengths too.
    """

    def __init__(self, *, signer: Any = CryptoSigner.generate_ed25519) -> None:
        expires = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=30)
        self.signed: dict[str, Any] = {
            "targets": Targets(expires=expires),
            "snapshot": Snapshot(expires=expires),
            "timestamp": Timestamp(expires=expires),
            "root": Root(expires=expires),
        }
        self.expires = expires
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.published: dict[str, list[bytes]] = {}
        self.asked: list[str] = []
        self.artifacts: dict[str, bytes] = {}
        self.with_hashes = False
        for role in TOP:
            self.give_keys(role, [signer()])
        self.publish(*TOP)

    def give_keys(self, role: str, keys: Iterable[CryptoSigner], *, threshold: int = 1) -> None:
        """Let these keys, and no others, sign for a role."""
        self.signers[role] = [*keys]
        self.signed["root"].roles[role].keyids.clear()
        self.signed["root"].roles[role].threshold = threshold
        for key in self.signers[role]:
            self.signed["root"].add_key(key.public_key, role)

    def publish(self, *roles: str, bump: bool = True) -> None:
        """Sign roles in this order, and name each in the next one as it is now."""
        for role in roles:
            signed = self.signed[role]
            if bump and role in self.published:
                signed.version += 1
            metadata = Metadata(signed)
            for signer in self.signers[role]:
                metadata.sign(signer, append=True)
            self.published.setdefault(role, []).append(metadata.to_bytes())
            if role == "snapshot":
                self.signed["timestamp"].snapshot_meta = self._meta(role)
            elif role not in {"timestamp", "root"}:
                self.signed["snapshot"].meta[f"{role}.json"] = self._meta(role)

    def delegate(self, delegator: str, role: str, *paths: str, terminating: bool = False) -> None:
        """Let a role be asked for some paths, after those that the delegator already asks."""
        signer = CryptoSigner.generate_ed25519()
        asker = self.signed[delegator]
        asker.delegations = asker.delegations or Delegations({}, roles={})
        asker.delegations.roles[role] = DelegatedRole(role, [], 1, terminating, list(paths) or ["*"])
        self.signed.setdefault(role, Targets(expires=self.expires))
        signers = self.signers.setdefault(role, [signer])
        asker.add_key(signers[0].public_key, role)

    def add(self, path: str, content: bytes, *, role: str = "targets") -> None:
        """Sign for an artifact, and serve it."""
        self.signed[role].targets[path] = TargetFile.from_data(path, content, ["sha256"])
        self.artifacts[path] = content

    def _meta(self, role: str) -> MetaFile:
        version, raw = self.signed[role].version, self.published[role][-1]
        return MetaFile.from_data(version, raw, ["sha256"]) if self.with_hashes else MetaFile(version)

    def get(self, path: str) -> bytes | None:
        """Return what is served."""
        folder, _, rest = path.lstrip("/").partition("/")
        if folder == "targets":
            place, _, name = unquote(rest).rpartition("/")
            return self.artifacts.get("/".join(filter(None, (place, name.partition(".")[2]))))
        self.asked.append(rest.removesuffix(".json"))
        version, _, role = rest.removesuffix(".json").partition(".")
        versions = {Metadata.from_bytes(raw).signed.version: raw for raw in self.published.get(unquote(role), ())}
        return self.published["timestamp"][-1] if rest == "timestamp.json" else versions.get(int(version))


class RepositoryServer:
    """A repository behind a port of this machine."""

    def __init__(self, repository: Repository) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                raw = repository.get(self.path)
                self.send_response(404 if raw is None else 200)
                self.send_header("Content-Length", str(len(raw or b"")))
                self.end_headers()
                self.wfile.write(raw or b"")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
