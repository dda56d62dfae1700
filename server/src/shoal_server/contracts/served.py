"""Contracts set at the server: rules of a model beside those of its bundles, for every version; counted, never refused.

What a model answers is decided by who releases it; so a rule that refuses belongs into the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlmodel import Session

from shoal_protocol.bundle.contract import MOST_RULES, Rule, parse_contract
from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.profile.counting import Counting, encode_counting
from shoal_server.contracts.tables import ModelContractRow
from shoal_server.errors import NotFoundError
from shoal_server.registry.store import version_of_digest

_MOST = MOST_RULES // 2
"""Bundles may promise as many of their own."""

_ANY_BUNDLE = "sha256:" + 64 * "0"
_BOUNDS = "a contract holds ordinary texts, and numbers up to 1e308"


def checked_rules(document: Mapping[str, Any], *, fields: Collection[str]) -> tuple[Rule, ...]:
    """Read a contract that is to be set.

    Args:
        document: The written form.
        fields: Features of the model's newest version.

    Raises:
        ContentError: It is none, or names a feature that the model lacks; with every fault.
        CallerError: A rule refuses, there are too many, or a number or text in it is none that can be sent to devices.
    """
    try:
        rules = parse_contract(document, fields=fields)
    except (OverflowError, ValueError) as error:  # JSON knows larger numbers than a range can have
        raise CallerError(f"a number in the contract is too large: {error}", hint=_BOUNDS) from error
    refusing = sorted({rule.field for rule in rules if rule.action != "count"})
    if refusing:
        raise CallerError(
            f"a contract at the server counts and refuses nothing, but {', '.join(refusing[:8])} would: action refuse",
            hint="what a model answers is its release's to say: shoal-convert pack … --contract contract.yaml",
        )
    if not 0 < len(rules) <= _MOST:
        raise CallerError(f"expected 1 to {_MOST} rules, got {len(rules)}", hint="shoalctl contract clear takes all")
    _check_storable(document, rules)
    return rules


def _check_storable(document: Mapping[str, Any], rules: tuple[Rule, ...]) -> None:
    """Raise `CallerError` for what a database or the document for devices can't hold."""
    try:
        encode_counting(Counting(_ANY_BUNDLE, rules=rules))
        written = json.dumps(document, allow_nan=False)
    except (ContentError, OverflowError, ValueError) as error:
        raise CallerError(f"the contract can't be sent to devices: {error}", hint=_BOUNDS) from error
    if "\\u0000" in written:
        raise CallerError("a text in the contract holds the character NUL, which no database stores", hint=_BOUNDS)


def set_contract(session: Session, model: str, document: Mapping[str, Any], *, by: str, now: float) -> None:
    """Store the contract of a model over what was there."""
    session.merge(ModelContractRow(model=model, document=dict(document), set_by=by, set_at=now))


def clear_contract(session: Session, model: str) -> ModelContractRow:
    """Take the contract of a model away, and return it; raises `NotFoundError`."""
    row = contract_of(session, model)
    session.delete(row)
    return row


def contract_of(session: Session, model: str) -> ModelContractRow:
    """Return the contract of a model; raises `NotFoundError`."""
    row = session.get(ModelContractRow, model)
    if row is None:
        raise NotFoundError(
            f"no contract is set for {model!r:.80}", hint=f"set one: shoalctl contract set {model} contract.yaml"
        )
    return row


def served_rules(session: Session, digest: str) -> tuple[Rule, ...]:
    """Return the rules that are set for a bundle's model; features that this version lacks break nothing there."""
    version = version_of_digest(session, digest)
    row = None if version is None else session.get(ModelContractRow, version.model)
    try:
        return () if row is None else parse_contract(row.document)
    except (OverflowError, ValueError):  # stored by an earlier version, which checked less
        return ()
