"""What this server says about its trust: the mode, who may sign, until when, and what to do soon."""

from typing import Any

from sqlmodel import Session
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.trust.roots import TrustMode, role_keys, trust_mode
from shoal_server.registry import trust_documents as documents
from shoal_server.registry.trust import TrustService
from shoal_server.registry.trust_keys import ONLINE_ROLES
from shoal_server.timestamps import rfc3339

WARN_S = 30 * 86_400.0
"""So long before the end of what is signed elsewhere somebody is told."""

WORDS = {
    TrustMode.DEVELOPMENT: "development trust: this server holds every key, and whoever can read its files can make "
    "devices run anything",
    TrustMode.RELEASE_KEY: "release keys: only bundles that a release key signed away from this server are installed",
}


def warnings(trust: TrustService, *, now: float) -> list[str]:
    """Return what somebody has to sign again soon; empty while all is well."""
    if trust.mode is TrustMode.DEVELOPMENT:
        return []
    expiries = trust.expiries()
    told = []
    for role, what, cure in (
        ("targets", "the signed list of releases", "shoal-convert keys resign"),
        ("root", "the root of trust", "shoal-convert keys rotate root"),
    ):
        left_s = expiries[role] - now
        if left_s <= 0:
            told.append(f"{what} has expired: no device installs anything new; {cure}")
        elif left_s < WARN_S:
            told.append(f"{what} expires in {int(left_s // 86_400)} days; {cure}")
    return told


def status(trust: TrustService, session: Session, *, now: float) -> dict[str, Any]:
    """Return the trust of this server as JSON."""
    root_raw = documents.newest_raw(session, "root")
    root, listed = documents.root(session).signed, trust.signed_list(session)
    mode = trust_mode(root)
    return {
        "mode": mode.value,
        "meaning": WORDS[mode],
        "root": {
            "version": root.version,
            "digest": sha256_digest(root_raw),
            "expires_at": rfc3339(root.expires.timestamp()),
            **_keys(root, Root.type),
        },
        "release": _keys(root, Targets.type),
        "online": {
            role: _keys(root, kind)["keys"][0]
            for role, kind in zip(ONLINE_ROLES, (Snapshot.type, Timestamp.type), strict=True)
        },
        "list": {
            "version": listed.version,
            "expires_at": rfc3339(documents.expires(session, "targets")),
            "releases": len(listed.entries),
            "denied": sorted(listed.deny),
            "minimum": dict(listed.minimum),
        },
        "warnings": warnings(trust, now=now),
    }


def _keys(root: Root, role: str) -> dict[str, Any]:
    found = role_keys(root, role)
    return {"threshold": found.threshold, "keys": [key.keyid for key in found.keys]}
