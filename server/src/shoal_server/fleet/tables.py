"""Tables of devices, join tokens, assignments, and the server's own keys for short-lived marks."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, LargeBinary
from sqlmodel import Field, SQLModel


class DeviceRow(SQLModel, table=True):
    """One device, as `devices.Device` describes it."""

    __tablename__ = "devices"
    id: str = Field(primary_key=True)
    state: str = Field(index=True)
    labels: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    facts: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    pins: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    public_key: str
    verifier: str
    """Line of a mosquitto password file; see `shoal_server.link.verifiers`."""
    credential: int = 1
    """Number of the credentials (`verifier`, `public_key`) that hold; see `shoal_server.fleet.credentials`."""
    credential_at: float = 0.0
    """Since when they hold."""
    next_verifier: str = ""
    """Of the credentials that were handed out and not yet used; empty: none were."""
    next_public_key: str = ""
    proved_at_ms: int = Field(default=0, sa_type=BigInteger)
    """When the newest challenge was made that the device answered; none is answered twice."""
    token_id: str
    enrolled_at: float
    online: bool = False
    last_seen_at: float | None = None
    polled_at: float | None = None
    """When it last asked over HTTP what it should run, to within a few seconds."""
    epoch: str = ""
    boot: int = Field(default=0, sa_type=BigInteger)
    seq: int = Field(default=0, sa_type=BigInteger)
    seen: dict[str, list[int]] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """Newest [boot, seq, sent_at] of each kind of message, within `epoch`."""
    past_epochs: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Epochs that were replaced; their messages are late."""
    reported: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    generation_reported: int = Field(default=0, sa_type=BigInteger)
    clone_suspected_at: float | None = None
    runs: list[list[Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """[run, sent_at] of the agent's newest runs, of whatever epoch, the one that spoke last at the end."""
    hold: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


class JoinTokenRow(SQLModel, table=True):
    """A token by which devices may enrol, known by the hash of its secret."""

    __tablename__ = "join_tokens"
    id: str = Field(primary_key=True)
    secret_hash: str
    labels: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    uses_left: int
    needs_approval: bool = False
    created_by: str
    created_at: float
    expires_at: float


class CountingRow(SQLModel, table=True):
    """What is counted of a bundle beyond what it says itself; see `shoal_protocol.profile.counting`."""

    __tablename__ = "countings"
    bundle: str = Field(primary_key=True)
    digest: str = Field(index=True)
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    changed_at: float


class DesiredRow(SQLModel, table=True):
    """What one device should run: the outbox of the publisher."""

    __tablename__ = "desired"
    device: str = Field(primary_key=True)
    generation: int = Field(sa_type=BigInteger)
    published_generation: int = Field(default=0, sa_type=BigInteger)
    slots: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    credential: int = 0
    """Number of the credentials that the device should hold; 0: whatever it holds."""
    changed_at: float
    document: str | None = None
    """The signed envelope of `document_generation`."""
    document_generation: int = Field(default=0, sa_type=BigInteger)
    issued_at: float = 0.0
    expires_at: float = 0.0
    resign_at: float = Field(default=0.0, index=True)
    """When the document has to be signed (again); 0: now."""


class ServerKeyRow(SQLModel, table=True):
    """A secret of this installation, the same for all its servers; made when it is first needed."""

    __tablename__ = "server_keys"
    name: str = Field(primary_key=True)
    value: str
