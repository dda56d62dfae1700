"""Tables of the registry."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel


class ModelVersion(SQLModel, table=True):
    """One admitted version of a model; never changed except for `state` and `deprecated`."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model", "counter"),)
    model: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    digest: str = Field(unique=True)
    counter: int
    """Grows with every version of the model; what the signed minimum is compared with."""
    state: str
    """A `versions.VersionState`."""
    task: str
    framework: str
    size: int
    """Bytes of the whole bundle without its manifest."""
    variants: Any = Field(default=None, sa_column=Column(JSON, nullable=False))
    created_at: float
    created_by: str
    deprecated: str = ""
    """Why no new rollout should take it; empty: nothing speaks against it."""


class DeletedVersion(SQLModel, table=True):
    """A version that was deleted: its name stays taken, for its digest only."""

    __tablename__ = "deleted_versions"
    model: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    digest: str
    counter: int
    deleted_at: float
    deleted_by: str


class ModelAlias(SQLModel, table=True):
    """What an alias of a model points at now."""

    __tablename__ = "model_aliases"
    model: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: str
    set_at: float
    set_by: str


class AliasChange(SQLModel, table=True):
    """What an alias pointed at from one instant on; None: it was taken away."""

    __tablename__ = "alias_changes"
    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True)
    alias: str
    version: str | None = None
    at: float
    by: str


class OciBlob(SQLModel, table=True):
    """A blob that may be pulled from a repository."""

    __tablename__ = "oci_blobs"
    repository: str = Field(primary_key=True)
    digest: str = Field(primary_key=True, index=True)
    size: int = Field(default=0, sa_type=BigInteger)
    """Bytes of the blob."""
    touched_at: float = 0.0
    """When somebody pushed it, or asked whether it has to be: what it belongs to may still be under way."""


class BlobForm(SQLModel, table=True):
    """A coded form of a blob that was made, or turned out to save nothing; see `forms`."""

    __tablename__ = "blob_forms"
    digest: str = Field(primary_key=True)
    """Of the blob."""
    base: str = Field(primary_key=True, default="")
    """Digest of the blob that it was coded against; empty: it was compressed alone."""
    form: str = Field(default="", index=True)
    """Digest of the coded bytes, which lie in the blob store; empty: coding saves nothing worth it."""
    size: int = Field(default=0, sa_type=BigInteger)
    """Coded bytes."""
    made_at: float = 0.0


class OciManifest(SQLModel, table=True):
    """A manifest of a repository; its bytes are the blob of the same digest."""

    __tablename__ = "oci_manifests"
    repository: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    media_type: str
    artifact_type: str
    subject: str | None = Field(default=None, index=True)
    """Digest of the manifest that this one says something about."""
    size: int
    annotations: Any = Field(default=None, sa_column=Column(JSON, nullable=False))
    blobs: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Digests of its config and layers."""
    manifests: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Digests of the manifests that it lists, when it is an index."""
    touched_at: float = 0.0
    """When it was pushed last."""


class OciTag(SQLModel, table=True):
    """A tag that is neither a version nor an alias of a model."""

    __tablename__ = "oci_tags"
    repository: str = Field(primary_key=True)
    tag: str = Field(primary_key=True)
    digest: str


class TrustDocument(SQLModel, table=True):
    """One version of one role's TUF metadata, as it was signed."""

    __tablename__ = "trust_documents"
    role: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
