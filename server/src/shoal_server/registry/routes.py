"""HTTP of models, their versions and aliases, for people and pipelines."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlmodel import Session

from shoal_protocol.errors import CallerError
from shoal_protocol.refs import ALIAS_RE
from shoal_server.access import Principal
from shoal_server.access.guard import Program, Releaser, Viewer, record_change
from shoal_server.errors import ConflictError, NotFoundError
from shoal_server.outbox import EventType
from shoal_server.paging import MAX_LIMIT, decode_cursor, page
from shoal_server.registry import oci_store, store
from shoal_server.registry.announcements import announce_version
from shoal_server.registry.differences import differences
from shoal_server.registry.lineage import lineage_of
from shoal_server.registry.list_rules import state_by_list
from shoal_server.registry.needs import names_of
from shoal_server.registry.tables import AliasChange, ModelAlias, ModelVersion
from shoal_server.registry.versions import VersionState
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1/models", tags=["models"])

_NEEDS_SHOWN = 100

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class Deprecation(BaseModel):
    """Why a version should no longer be taken."""

    reason: str = Field(max_length=500)


class AliasTarget(BaseModel):
    """What an alias shall point at."""

    version: str


@router.get("", operation_id="models_list")
def list_models(
    program: Program,
    _principal: Viewer,
    *,
    q: Annotated[str, Query(max_length=200, description="text in name, version, alias, framework or task")] = "",
    limit: Limit = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List models with their newest version and aliases, by name."""
    with program.database.read() as session:
        names = store.models(session, after=decode_cursor(cursor), limit=limit + 1, matching=q.strip())
        return page(names, limit=limit, position=lambda name: name, item=lambda name: _model(session, name))


@router.get("/{model}", operation_id="models_show")
def show_model(model: str, program: Program, _principal: Viewer) -> dict[str, Any]:
    """Show one model: all aliases, its newest versions."""
    with program.database.read() as session:
        return {
            **_model(session, model),
            "versions": [_version(row) for row in store.versions(session, model, limit=50)],
        }


@router.get("/{model}/versions", operation_id="versions_list")
def list_versions(
    model: str, program: Program, _principal: Viewer, limit: Limit = 100, cursor: str | None = None
) -> dict[str, Any]:
    """List a model's versions, the newest first."""
    with program.database.read() as session:
        rows = store.versions(session, model, below_counter=decode_cursor(cursor), limit=limit + 1)
    return page(rows, limit=limit, position=lambda row: row.counter, item=_version)


@router.get("/{model}/versions/{version}", operation_id="versions_show")
def show_version(model: str, version: str, program: Program, _principal: Viewer) -> dict[str, Any]:
    """Show one version with what is inside its bundle, and which devices, rollouts and aliases need it now."""
    with program.database.read() as session:
        row = store.version(session, model, version)
        needed_by = sorted({need.who for need in program.needs(session) if need.digest == row.digest})
    return {
        **_version(row),
        **_contents(program, row.digest),
        "needed_by": needed_by[:_NEEDS_SHOWN],
        "needed_by_count": len(needed_by),
    }


@router.get("/{model}/versions/{version}/lineage", operation_id="versions_lineage")
def show_lineage(model: str, version: str, program: Program, _principal: Viewer) -> dict[str, Any]:
    """Show where a version comes from: parents, children, code, data and libraries, as its pipeline stated them."""
    with program.database.read() as session:
        return lineage_of(session, program.bundles, store.version(session, model, version))


@router.get("/{model}/diff", operation_id="versions_diff")
def diff_versions(
    model: str,
    program: Program,
    _principal: Viewer,
    *,
    old: Annotated[str, Query(max_length=128)],
    new: Annotated[str, Query(max_length=128)],
    new_model: Annotated[str | None, Query(max_length=128, description="model of `new`, if it is another")] = None,
) -> dict[str, Any]:
    """Show what differs between two versions: runtime, inputs, outputs, files, size, parity, cost and origin."""
    with program.database.read() as session:
        before = comparable(session, program, store.version(session, model, old))
        after = comparable(session, program, store.version(session, new_model or model, new))
    return {"before": before["ref"], "after": after["ref"], "changes": differences(before, after)}


def comparable(session: Session, program: Program, row: ModelVersion) -> dict[str, Any]:
    """Return all of a version that `differences` looks at."""
    reference = program.bundles.reference(row.digest)
    return {
        **_version(row),
        **_contents(program, row.digest),
        "metrics": {} if reference is None else dict(reference.metrics),
        "lineage": lineage_of(session, program.bundles, row),
    }


@router.post("/{model}/versions/{version}/deny", operation_id="versions_deny")
def deny_version(model: str, version: str, request: Request, program: Program, principal: Releaser) -> dict[str, Any]:
    """Put a version on the signed deny list: no device installs it or goes back to it; where it runs, it runs on."""
    return _set_state(model, version, VersionState.DENIED, request, program, principal)


@router.post("/{model}/versions/{version}/allow", operation_id="versions_allow")
def allow_version(model: str, version: str, request: Request, program: Program, principal: Releaser) -> dict[str, Any]:
    """Lift a version from the deny list."""
    return _set_state(model, version, VersionState.RELEASED, request, program, principal)


@router.put("/{model}/versions/{version}/deprecation", operation_id="versions_deprecate")
def deprecate_version(
    model: str, version: str, body: Deprecation, request: Request, program: Program, _principal: Releaser
) -> dict[str, Any]:
    """Say why no new rollout should take a version, or nothing to take that back; devices and the signed list stay."""
    with program.database.write() as session:
        store.lock_model(session, model)
        row = store.version(session, model, version)
        before, row.deprecated = row.deprecated, body.reason.strip()
        if before != row.deprecated:
            subject = f"model:{model}:{version}"
            record_change(
                session, request, action="model.deprecate", subject=subject, before=before, after=row.deprecated
            )
        shown = _version(row)
    program.signals.bump("models")
    return shown


@router.delete("/{model}/versions/{version}", status_code=204, operation_id="versions_delete")
def delete_version(model: str, version: str, request: Request, program: Program, principal: Releaser) -> None:
    """Delete a version that nothing needs; refused with the names of those that do. Its name stays taken."""
    with program.database.write() as session:
        oci_store.lock_contents(session)
        store.lock_model(session, model)
        row = store.version(session, model, version)
        _check_unneeded(session, program, row)
        if program.trust.signs_releases(session):
            program.trust.withdraw_release(session, model=model, version=version, digest=row.digest)
        store.remove_version(session, row, by=principal.actor, now=program.clock())
        record_change(session, request, action="model.delete", subject=f"model:{model}:{version}", before=row.digest)
    program.signals.bump("models")


@router.get("/{model}/aliases", operation_id="aliases_list")
def list_aliases(model: str, program: Program, _principal: Viewer) -> dict[str, Any]:
    """List a model's aliases."""
    with program.database.read() as session:
        return {"items": [_alias(row) for row in store.aliases(session, model)], "next_cursor": None}


@router.get("/{model}/aliases/{alias}", operation_id="aliases_show")
def show_alias(model: str, alias: str, program: Program, _principal: Viewer) -> dict[str, Any]:
    """Show what an alias points at, and what it pointed at before."""
    with program.database.read() as session:
        row = store.alias(session, model, alias)
        history = store.alias_history(session, model, alias)
    return {**_alias(row), "history": [_change(change) for change in history]}


@router.put("/{model}/aliases/{alias}", operation_id="aliases_set")
def set_alias(  # noqa: PLR0917 - FastAPI passes by name
    model: str, alias: str, body: AliasTarget, request: Request, program: Program, principal: Releaser
) -> dict[str, Any]:
    """Point an alias at a version; the same again changes nothing."""
    if ALIAS_RE.fullmatch(alias) is None:
        raise CallerError(f"{alias!r:.80} is not an alias: expected a lower-case letter, then letters, digits, _ or -")
    with program.database.write() as session:
        before = store.set_alias(
            session, model=model, name=alias, version_name=body.version, by=principal.actor, now=program.clock()
        )
        if before != body.version:
            subject = f"model:{model}@{alias}"
            record_change(session, request, action="model.alias", subject=subject, before=before, after=body.version)
        row = store.alias(session, model, alias)
    program.signals.bump("models")
    return _alias(row)


@router.delete("/{model}/aliases/{alias}", status_code=204, operation_id="aliases_delete")
def delete_alias(model: str, alias: str, request: Request, program: Program, principal: Releaser) -> None:
    """Take an alias away; its history stays."""
    with program.database.write() as session:
        before = store.remove_alias(session, model=model, name=alias, by=principal.actor, now=program.clock())
        record_change(session, request, action="model.alias", subject=f"model:{model}@{alias}", before=before)
    program.signals.bump("models")


def _set_state(  # noqa: PLR0917 - in the order of the routes
    model: str, version: str, state: VersionState, request: Request, program: Program, principal: Principal
) -> dict[str, Any]:
    with program.database.write() as session:
        store.lock_model(session, model)
        row = store.version(session, model, version)
        before = row.state
        if before != state:
            row.state = state.value
            _tell_devices(session, program, row, state)
            subject = f"model:{model}:{version}"
            record_change(
                session, request, action=f"model.{_VERBS[state]}", subject=subject, before=before, after=state
            )
            announce_version(session, _EVENTS[state], row, actor=principal.actor, now=program.clock())
        advice = _advice(program, session, row)
    for topic in ("models", "desired"):
        program.signals.bump(topic)
    return {**_version(row), **advice}


def _check_unneeded(session: Session, program: Program, row: ModelVersion) -> None:
    name = f"{row.model}:{row.version}"
    needs = [need for need in program.needs(session) if need.digest == row.digest]
    if needs:
        raise ConflictError(
            f"{name} is needed by {names_of(needs)}",
            hint="bring devices to another version, end the rollouts and move the aliases first",
            needed_by=sorted({need.who for need in needs}),
        )
    trust = program.trust
    if not trust.signs_releases(session) and trust.signed_list(session).find(row.digest) is not None:
        raise ConflictError(
            f"{name} is on the list that a release key signed: devices may still be told to install it",
            hint=f"take it off there first: shoal-convert keys revoke {name}",
        )


def _tell_devices(session: Session, program: Program, row: ModelVersion, state: VersionState) -> None:
    """Change the signed list where this server signs it; else only the release key's holder can tell devices."""
    trust = program.trust
    if trust.signs_releases(session):
        trust.set_denied(session, row.digest, denied=state is VersionState.DENIED)
        if state is VersionState.DENIED:
            program.call_devices(session)
    elif state is VersionState.RELEASED:
        row.state = state_by_list(trust.signed_list(session), row.digest, was=VersionState.UNSIGNED).value


def _advice(program: Program, session: Session, row: ModelVersion) -> dict[str, Any]:
    if program.trust.signs_releases(session):
        return {}
    if row.state == VersionState.RELEASED or row.digest in program.trust.signed_list(session).deny:
        return {}
    ref = f"{row.model}:{row.version}"
    return {"advice": f"no new rollout takes it; so that devices refuse it too: shoal-convert keys revoke {ref}"}


_VERBS = {VersionState.DENIED: "deny", VersionState.RELEASED: "allow"}
_EVENTS = {VersionState.DENIED: EventType.MODEL_DENIED, VersionState.RELEASED: EventType.MODEL_ALLOWED}


def _model(session: Session, name: str) -> dict[str, Any]:
    newest = next(iter(store.versions(session, name, limit=1)), None)
    if newest is None:
        raise NotFoundError(f"there is no model {name!r}", hint="list them with: shoalctl model list")
    return {"name": name, "newest": _version(newest), "aliases": [_alias(row) for row in store.aliases(session, name)]}


def _version(row: ModelVersion) -> dict[str, Any]:
    return {
        "ref": f"{row.model}:{row.version}",
        "model": row.model,
        "version": row.version,
        "digest": row.digest,
        "counter": row.counter,
        "state": row.state,
        "deprecated": row.deprecated,
        "task": row.task,
        "framework": row.framework,
        "size": row.size,
        "variants": row.variants,
        "created_at": rfc3339(row.created_at),
        "created_by": row.created_by,
    }


def _contents(program: Program, digest: str) -> dict[str, Any]:
    bundles = program.bundles
    return {
        "bundle": msgspec.to_builtins(bundles.info(digest)),
        "schema": msgspec.to_builtins(bundles.schema(digest)),
        "files": [
            {"path": path, "size": layer.size, "digest": layer.digest}
            for path, layer in bundles.manifest(digest).files().items()
        ],
    }


def _alias(row: ModelAlias) -> dict[str, Any]:
    return {"alias": row.alias, "version": row.version, "set_at": rfc3339(row.set_at), "set_by": row.set_by}


def _change(row: AliasChange) -> dict[str, Any]:
    return {"version": row.version, "at": rfc3339(row.at), "by": row.by}
