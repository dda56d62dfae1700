"""What a release key does with the signed list: add a release, take one back, bar it, sign it all again.

Owns the changes as functions over TUF targets metadata; `authority` fetches, signs and sends.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tuf.api.metadata import Targets

from shoal_converter.errors import SignatureError
from shoal_protocol.errors import CallerError
from shoal_protocol.refs import Ref
from shoal_protocol.trust.signed_list import TargetEntry
from shoal_protocol.trust.targets import release_target, set_restrictions, signed_list

LIFETIME = timedelta(days=90)
"""How long devices may install from a list; a job signs it again before. Shorter: a thief's time is shorter, too."""

Change = Callable[[Targets], bool]


def add_release(model: str, version: str, manifest_raw: bytes, *, until: datetime) -> Change:
    """Return the change that allows a release; nothing changes when the list has it already.

    Raises (from the change):
        SignatureError: The list has this version with another digest.
    """

    def change(targets: Targets) -> bool:
        listed = signed_list(targets)
        target = release_target(model, version, manifest_raw, counter=listed.next_counter(model))
        there = targets.targets.get(target.path)
        if there is not None and there.hashes == target.hashes:
            return False
        if there is not None:
            raise SignatureError(
                f"{model}:{version} is signed already, with the digest sha256:{there.hashes['sha256']}",
                hint="versions never change: give the new bundle a new version",
            )
        targets.targets[target.path] = target
        targets.expires = until
        return True

    return change


def sign_again(*, until: datetime) -> Change:
    """Return the change that only moves the date of expiry."""

    def change(targets: Targets) -> bool:
        targets.expires = until
        return True

    return change


def revoke(ref: Ref, *, until: datetime, below: bool = False) -> Change:
    """Return the change that takes a release off the list.

    Args:
        ref: ``name:version``, or ``name@sha256:…``.
        until: New date of expiry.
        below: Take off all older ones of the model, too, and let the minimum keep every one of them away.
    """

    def change(targets: Targets) -> bool:
        listed = signed_list(targets)
        found = _entry(targets, ref)
        gone = [e for e in listed.entries.values() if e.model == found.model and e.counter <= found.counter]
        for entry in gone if below else [found]:
            del targets.targets[entry.path]
        if below:
            minimum = {**listed.minimum, found.model: max(found.counter + 1, listed.minimum.get(found.model, 0))}
            set_restrictions(targets, deny=listed.deny, minimum=minimum)
        targets.expires = until
        return True

    return change


def set_denied(ref: Ref, *, denied: bool, until: datetime) -> Change:
    """Return the change that bars a release although it stays listed, or lifts that."""

    def change(targets: Targets) -> bool:
        listed = signed_list(targets)
        digest = _entry(targets, ref).digest
        deny = listed.deny | {digest} if denied else listed.deny - {digest}
        if deny == listed.deny:
            return False
        set_restrictions(targets, deny=deny, minimum=listed.minimum)
        targets.expires = until
        return True

    return change


def _entry(targets: Targets, ref: Ref) -> TargetEntry:
    listed = signed_list(targets)
    found = next(
        (
            entry
            for entry in listed.entries.values()
            if entry.model == ref.name and (entry.version == ref.version or entry.digest == ref.digest)
        ),
        None,
    )
    if found is None:
        raise CallerError(f"the signed list does not name {ref}", hint="shoalctl model show NAME lists versions")
    return found
