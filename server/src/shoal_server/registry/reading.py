"""Who may pull what: people and pipelines everything, a device only what this server ever wanted on it.

Owns the check that every pull passes. A stolen device credential then opens the models of that device and no others;
what isn't the device's own is as if it didn't exist. Refused pulls write no audit row: a device could
otherwise fill the audit.
"""

from sqlmodel import Session

from shoal_server.access import Principal
from shoal_server.errors import NotFoundError
from shoal_server.registry import oci_store
from shoal_server.services import Services


def check_pull(session: Session, program: Services, principal: Principal, repository: str, digest: str | None) -> None:
    """Refuse a device what is neither a bundle of its own, nor a part of one, nor said about one.

    Its own are those that its newest assignment names, shadows included, and those of rollouts that it is or was a
    member of, so that it may fetch ahead of its stage.

    Args:
        session: Of any transaction.
        program: Tells what is wanted on the device.
        principal: Who pulls.
        repository: From where.
        digest: Of a manifest or blob; None: of something that doesn't exist.

    Raises:
        NotFoundError: The device may not have it, whether it exists or not.
    """
    if principal.device is None:
        return
    allowed = program.may_fetch(session, principal.device)
    if digest is None or not oci_store.may_pull(session, repository, digest, allowed):
        raise NotFoundError(
            f"{repository} has nothing of that name that {principal.device} is assigned",
            hint="shoalctl device show DEVICE tells what it is assigned",
            oci_code="MANIFEST_UNKNOWN",
        )
