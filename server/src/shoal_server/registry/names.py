"""Names of repositories in routes: checked before a route runs."""

from typing import Annotated

from fastapi import Depends

from shoal_protocol.errors import CallerError
from shoal_protocol.refs import check_name
from shoal_server.registry.refusals import RefusedError


def repository_name(name: str) -> str:
    """Return the name; raises `RefusedError` when a model can't be called so."""
    try:
        return check_name(name)
    except CallerError as error:
        raise RefusedError("name", error.message, hint=error.hint, oci_code="NAME_INVALID") from error


RepositoryName = Annotated[str, Depends(repository_name)]
