"""`/api/v1/contracts`: the rules of the bundles that run, those set for models, and how often they were broken."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from sqlmodel import Session

from shoal_protocol.bundle.contract import derived_contract
from shoal_server.access.guard import Operator, Program, Viewer, record_change
from shoal_server.contracts.report import gather
from shoal_server.contracts.served import checked_rules, clear_contract, contract_of, set_contract
from shoal_server.contracts.tables import ModelContractRow
from shoal_server.errors import NotFoundError
from shoal_server.registry.store import version, versions
from shoal_server.registry.tables import ModelVersion
from shoal_server.timestamps import rfc3339

router = APIRouter(prefix="/api/v1/contracts", tags=["contracts"])


@router.get("", operation_id="contracts_show")
def show(
    program: Program,
    _principal: Viewer,
    *,
    slot: str | None = None,
    hours: Annotated[float, Query(gt=0, le=168, description="Length of the span until now, hours.")] = 1.0,
) -> dict[str, Any]:
    """Show each rule of each bundle that ran in a span of time: rows checked, rows that broke it, by whom."""
    end_ms = round(1000 * program.clock()) + 1
    with program.database.read() as session:
        found = gather(
            session, program.bundles.schema, start_ms=end_ms - round(3_600_000 * hours), end_ms=end_ms, slot=slot
        )
    return {
        "hours": hours,
        "items": [
            {"slot": one.slot, "digest": one.digest, "rules": [state.as_json() for state in one.rules]} for one in found
        ],
    }


@router.get("/{model}", operation_id="contracts_get")
def get(model: str, program: Program, _principal: Viewer) -> dict[str, Any]:
    """Return the contract that is set for a model at the server."""
    with program.database.read() as session:
        return _set(contract_of(session, model))


@router.put("/{model}", operation_id="contracts_set")
def put(
    model: str, request: Request, program: Program, who: Operator, document: Annotated[dict[str, Any], Body()]
) -> dict[str, Any]:
    """Set the contract of a model, ``{fields: {…}}``: all its bundles' devices count it, beside the bundles' own."""
    with program.database.write() as session:
        schema = program.bundles.schema(_newest(session, model).digest)
        rules = checked_rules(document, fields={field.name for field in schema.inputs})
        set_contract(session, model, document, by=who.name, now=program.clock())
        after = {"rules": [rule.words for rule in rules]}
        record_change(session, request, action="contract.set", subject=f"model:{model}", after=after)
        told = _set(contract_of(session, model)) | {"rules": after["rules"]}
    program.signals.bump("counting")
    return told


@router.delete("/{model}", operation_id="contracts_clear")
def delete(model: str, request: Request, program: Program, _who: Operator) -> dict[str, Any]:
    """Take the contract of a model away; that of its bundles stays."""
    with program.database.write() as session:
        before = _set(clear_contract(session, model))
        record_change(session, request, action="contract.clear", subject=f"model:{model}", before=before)
    program.signals.bump("counting")
    return before


@router.get("/{model}/derived", operation_id="contracts_derive")
def derive(
    model: str, program: Program, _principal: Viewer, version_name: Annotated[str | None, Query(alias="version")] = None
) -> dict[str, Any]:
    """Write a contract from what a version's schema says of its training data: a beginning, to be looked through."""
    with program.database.read() as session:
        row = _newest(session, model) if version_name is None else version(session, model, version_name)
    return derived_contract(program.bundles.schema(row.digest).inputs)


def _newest(session: Session, model: str) -> ModelVersion:
    found = next(iter(versions(session, model, limit=1)), None)
    if found is None:
        raise NotFoundError(f"there is no model {model!r:.80}", hint="list them with: shoalctl model list")
    return found


def _set(row: ModelContractRow) -> dict[str, Any]:
    return {"model": row.model, "contract": row.document, "set_by": row.set_by, "set_at": rfc3339(row.set_at)}
