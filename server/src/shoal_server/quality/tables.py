"""Tables of model quality."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel


class OutputScanRow(SQLModel, table=True):
    """How far the windows have been summed; one row."""

    __tablename__ = "quality_scan"
    id: int = Field(primary_key=True)
    read_through: int = Field(sa_type=BigInteger)
    """Id of the last window that is in the sums."""
    watched_hour: int = Field(sa_type=BigInteger)
    """Begin of the hour after the last one that was judged, in milliseconds."""


class OutputHourRow(SQLModel, table=True):
    """What one device's model said in one hour: counts of the output streams; outlives the windows."""

    __tablename__ = "output_hours"
    __table_args__ = (Index(None, "slot", "hour_ms"),)
    slot: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    hour_ms: int = Field(primary_key=True, sa_type=BigInteger)
    n: int = Field(sa_type=BigInteger)
    cells: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Counts of all output streams one after the other, as `encode_counts` writes them."""
