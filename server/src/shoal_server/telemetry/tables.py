"""Tables of windows, of what was received, and of what could not be read."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER key


class WindowRow(SQLModel, table=True):
    """One closed window of one slot of one device, never changed."""

    __tablename__ = "windows"
    __table_args__ = (
        UniqueConstraint("device", "epoch", "seq"),
        Index(None, "slot", "start_ms"),
        {"sqlite_autoincrement": True},  # ids only grow, also after the newest rows were deleted: scans go by them
    )
    id: int | None = Field(default=None, sa_column=Column(_Number, primary_key=True, autoincrement=True))
    device: str
    epoch: str
    seq: int = Field(sa_type=BigInteger)
    slot: str
    digest: str
    spec_hash: str
    start_ms: int = Field(sa_type=BigInteger)
    """Begin; never in the future of `received_at`, whatever the device's clock says."""
    length_ms: int = Field(sa_type=BigInteger)
    n: int = Field(sa_type=BigInteger)
    errors: int = Field(sa_type=BigInteger)
    content_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """First 16 bytes of the message's SHA-256."""
    received_at: float
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """The message as it came."""


class LedgerRow(SQLModel, table=True):
    """Which numbers of a device's epoch were received, see `ledger`."""

    __tablename__ = "ledgers"
    device: str = Field(primary_key=True)
    epoch: str = Field(primary_key=True)
    through: int = Field(sa_type=BigInteger)
    ranges: list[list[int]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    lost: int = Field(default=0, sa_type=BigInteger)
    updated_at: float


class MalformedRow(SQLModel, table=True):
    """A message that could not be read; the newest are kept, for whoever looks for the cause."""

    __tablename__ = "malformed_messages"
    __table_args__: Any = {"sqlite_autoincrement": True}
    id: int | None = Field(default=None, sa_column=Column(_Number, primary_key=True, autoincrement=True))
    device: str
    kind: str
    received_at: float
    error: str
    size_bytes: int
    head: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class HourRow(SQLModel, table=True):
    """How much a bundle was used in one slot in one hour, over all devices; outlives the windows."""

    __tablename__ = "window_hours"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    hour_ms: int = Field(primary_key=True, sa_type=BigInteger)
    windows: int = Field(sa_type=BigInteger)
    n: int = Field(sa_type=BigInteger)
    errors: int = Field(sa_type=BigInteger)


class LabelRow(SQLModel, table=True):
    """Counts of true labels by the hour of their predictions; see `shoal_protocol.profile.labels`."""

    __tablename__ = "label_hours"
    __table_args__: Any = (Index(None, "slot", "hour_ms"),)
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    hour_ms: int = Field(primary_key=True, sa_type=BigInteger)
    truth: int = Field(primary_key=True)
    said: int = Field(primary_key=True)
    bin: int = Field(primary_key=True)
    n: int = Field(sa_type=BigInteger)


class LabelErrorRow(SQLModel, table=True):
    """Sums of a regression's errors by the hour of the predictions."""

    __tablename__ = "label_error_hours"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    hour_ms: int = Field(primary_key=True, sa_type=BigInteger)
    n: int = Field(sa_type=BigInteger)
    error: float
    absolute: float
    square: float
    truth: float
    truth_square: float


class ShadowRow(SQLModel, table=True):
    """How far a shadow agreed with the active model on one device, by the hour; see `shoal_protocol.profile.shadow`."""

    __tablename__ = "shadow_hours"
    __table_args__: Any = (Index(None, "slot", "hour_ms"),)
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    shadow: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    hour_ms: int = Field(primary_key=True, sa_type=BigInteger)
    compared: int = Field(sa_type=BigInteger)
    agreed: int = Field(sa_type=BigInteger)
    dropped: int = Field(sa_type=BigInteger)
    errors: int = Field(sa_type=BigInteger)
    n: int = Field(sa_type=BigInteger)
    difference: float
    absolute: float
    square: float


class ShadowCellRow(SQLModel, table=True):
    """Counts that belong to a `ShadowRow`: pairs of classes, differences by size, latency of both models."""

    __tablename__ = "shadow_cells"
    __table_args__: Any = (Index(None, "slot", "hour_ms"),)
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    shadow: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    hour_ms: int = Field(primary_key=True, sa_type=BigInteger)
    kind: str = Field(primary_key=True)
    """``pair`` (class, class), ``difference`` (cell), ``active_latency`` and ``shadow_latency`` (cell)."""
    first: str = Field(primary_key=True)
    second: str = Field(primary_key=True)
    n: int = Field(sa_type=BigInteger)


class SampleBatchRow(SQLModel, table=True):
    """Raw rows that a device sent under a permission: compressed JSON of `shoal_protocol.samples.SampledRow`s."""

    __tablename__ = "sample_batches"
    __table_args__: Any = (
        UniqueConstraint("device", "batch"),
        Index(None, "slot", "id"),
        Index(None, "device", "received_at"),
        {"sqlite_autoincrement": True},  # downloads go by the numbers
    )
    id: int | None = Field(default=None, sa_column=Column(_Number, primary_key=True, autoincrement=True))
    device: str
    batch: str
    slot: str
    digest: str
    received_at: float
    rows: int
    seen: int = Field(sa_type=BigInteger)
    dropped: int = Field(sa_type=BigInteger)
    size_bytes: int
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
