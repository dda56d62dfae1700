"""Tables of the drift scan."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, LargeBinary
from sqlmodel import Field, SQLModel


def _bytes() -> Any:
    return Column(LargeBinary, nullable=False)


class ScanRow(SQLModel, table=True):
    """How far the scan has read; one row."""

    __tablename__ = "drift_scan"
    id: int = Field(primary_key=True)
    read_through: int = Field(sa_type=BigInteger)
    """All windows up to this id are in closed buckets; those after it are read again."""
    seen_through: int = Field(sa_type=BigInteger)
    """Largest id ever read: what is late is counted once."""


class MonitorRow(SQLModel, table=True):
    """One bundle in one slot that is watched."""

    __tablename__ = "drift_monitors"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    bucket_ms: int = Field(sa_type=BigInteger)
    watermark: int = Field(sa_type=BigInteger)
    """Last bucket that was closed."""
    features: list[str] = Field(sa_column=Column(JSON, nullable=False))
    categorical: list[bool] = Field(sa_column=Column(JSON, nullable=False))
    baseline_windows: int
    min_devices: int
    live: bytes = Field(sa_column=_bytes())
    """Recent counts of the fleet, fading: float64 of the spec's size."""
    late: int = 0
    """Windows that came after their bucket was closed; see `LateRow`."""
    damaged: int = 0
    """Windows whose counts were not what the bundle can give."""
    gap_told: bool = False
    devices: int = 0
    """That were scored in the last bucket."""
    season: str = "none"
    """After what time things repeat themselves, see `season`."""
    mean_time_to_false_alarm: float = 10_000.0
    """In windows, of each level."""
    titles: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False, server_default="[]"))
    """Of the features, for people; none: their names."""
    updated_at: float


class SketchRow(SQLModel, table=True):
    """What one device saw first of a bundle without reference, until that is learnt."""

    __tablename__ = "drift_sketches"
    digest: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    columns: bytes = Field(sa_column=_bytes())
    """JSON of `shoal_protocol.profile.sketch.Sketches`."""
    received_at: float


class LearntRow(SQLModel, table=True):
    """The reference that was learnt of a bundle which came without one."""

    __tablename__ = "learnt_references"
    digest: str = Field(primary_key=True)
    document: bytes = Field(sa_column=_bytes())
    """A ``reference.json``."""
    devices: int
    """That were heard."""
    learnt_at: float


class LateRow(SQLModel, table=True):
    """What the windows of one device said that came after their time was judged; see `late`."""

    __tablename__ = "drift_late"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    windows: int = Field(default=0, sa_type=BigInteger)
    rows: int = Field(default=0, sa_type=BigInteger)
    first_ms: int = Field(sa_type=BigInteger)
    last_ms: int = Field(sa_type=BigInteger)
    arrived_at: float
    """When the newest of them came."""
    verdict: str = "learning"
    feature: str = ""
    view: str = ""
    effect: float = 0.0
    evidence: float = 0.0
    since_at: float = 0.0
    memory: bytes = Field(default=b"", sa_column=_bytes())
    """Of the sequential rule, see `monitor_state`."""


class StreamRow(SQLModel, table=True):
    """What the sequential rule remembers of one scope, see `monitor_state`."""

    __tablename__ = "drift_streams"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    scope_name: str = Field(primary_key=True)
    memory: bytes = Field(sa_column=_bytes())


class AlarmRow(SQLModel, table=True):
    """One open alarm."""

    __tablename__ = "drift_alarms"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    scope_name: str = Field(primary_key=True)
    feature: str = Field(primary_key=True)
    component: int
    view: str
    onset: int = Field(sa_type=BigInteger)
    raised: int = Field(sa_type=BigInteger)
    state: str
    role: str
    """Whether it is a cause of its own, see `watch.Role`."""
    cause: str
    """Whose change it is, in words."""
    hint: str = ""
    """What the values suggest, in words."""
    alert_key: str
    """Of the alert that tells of it; empty until then."""


class ScoreRow(SQLModel, table=True):
    """Scores of one scope in one bucket, for histories; the newest are kept."""

    __tablename__ = "drift_scores"
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    bucket: int = Field(primary_key=True, sa_type=BigInteger)
    scope: str = Field(primary_key=True)
    scope_name: str = Field(primary_key=True)
    at: float
    """End of the bucket, seconds since the epoch."""
    devices: int
    evidence: bytes = Field(sa_column=_bytes())
    """log R over log threshold of each feature's six scores, float32 of shape (F, 6)."""
    effect: bytes = Field(sa_column=_bytes())
    """Change from the baseline in the location (first) contrast, float32 of shape (F, 1)."""
