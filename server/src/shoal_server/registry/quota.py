"""How much the registry, and each model in it, may hold.

Owns the two limits and the refusal that names them. What is shared by several models counts once for the registry and
once for each of them. Checked early, so that a client is told before it has sent gigabytes, and again in the
transaction that links a blob, so that two pushes at once can't pass together.
"""

from dataclasses import dataclass
from typing import ClassVar

from sqlmodel import Session, func, select

from shoal_server.errors import TooLargeError
from shoal_server.registry import oci_store
from shoal_server.registry.tables import OciBlob


class QuotaError(TooLargeError):
    """There is no room for it in the registry."""

    code = "quota"
    status: ClassVar[int] = 413

    def __init__(self, rule: str, *, whose: str, used: int, allowed: int, wanted: int) -> None:
        super().__init__(
            f"refused by the rule {rule}: {whose} holds {used} of {allowed} bytes, and this needs {wanted} more",
            hint="delete versions that nobody needs (shoalctl model delete), or have the quota raised",
            oci_code="DENIED",
            rule=rule,
            used=used,
            allowed=allowed,
            wanted=wanted,
        )


@dataclass(frozen=True)
class Quota:
    """The limits in bytes; None: none."""

    registry: int | None = None
    model: int | None = None

    def check(self, session: Session, repository: str, *, wanted: int, digest: str | None = None) -> None:
        """Refuse what doesn't fit.

        Args:
            session: Of any transaction.
            repository: Where it is pushed to.
            wanted: Its bytes.
            digest: Its digest, when it is known: what is there already needs no room.

        Raises:
            QuotaError: It doesn't fit; `data` has `rule`, `used`, `allowed` and `wanted`.
        """
        if self.model is not None and (digest is None or not oci_store.has_blob(session, repository, digest)):
            used = _model_bytes(session, repository)
            if used + wanted > self.model:
                raise QuotaError("model_quota", whose=repository, used=used, allowed=self.model, wanted=wanted)
        if self.registry is not None and (digest is None or not oci_store.is_known(session, digest)):
            used = registry_bytes(session)
            if used + wanted > self.registry:
                raise QuotaError(
                    "registry_quota", whose="the registry", used=used, allowed=self.registry, wanted=wanted
                )


def registry_bytes(session: Session) -> int:
    """Return the bytes of all blobs that any repository has, each counted once."""
    each = select(OciBlob.digest, OciBlob.size).distinct().subquery()
    return int(session.exec(select(func.coalesce(func.sum(each.c.size), 0))).one())


def _model_bytes(session: Session, repository: str) -> int:
    total = select(func.coalesce(func.sum(OciBlob.size), 0)).where(OciBlob.repository == repository)
    return int(session.exec(total).one())
