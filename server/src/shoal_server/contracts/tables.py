"""Table of contracts that were set at the server."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class ModelContractRow(SQLModel, table=True):
    """What the values of a model's features must be, beside what its bundles promise themselves."""

    __tablename__ = "model_contracts"
    model: str = Field(primary_key=True)
    document: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """The written form: ``{fields: {…}}``."""
    set_by: str
    set_at: float
