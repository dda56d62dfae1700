"""Which signed list may follow which, when a release key outside of the server signs it. Pure.

The signature says that the key's holder wants the list; these rules keep a mistake in a pipeline from spoiling what
devices rely on: versions stay what they are, and nothing is listed that the registry doesn't hold.
"""

from collections import Counter
from collections.abc import Callable

from shoal_protocol.errors import ContentError
from shoal_protocol.trust.signed_list import SignedList, TargetEntry
from shoal_server.registry.versions import VersionState

Held = Callable[[str, str], tuple[str, int] | None]
"""(model, version) -> digest and manifest size of what the registry holds, None when there is no such version."""


def check_next_list(old: SignedList, new: SignedList, held: Held) -> None:
    """Check a list's content against the one before and the registry.

    Raises:
        ContentError: Every rule that it breaks.
    """
    before = {entry.path: entry for entry in old.entries.values()}
    faults = [fault for entry in new.entries.values() for fault in _faults(entry, before.get(entry.path), held)]
    counters = Counter((entry.model, entry.counter) for entry in new.entries.values())
    faults += [f"two releases of {model} have the counter {n}" for (model, n), count in counters.items() if count > 1]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ContentError(f"the signed list breaks rules: {'; '.join(faults[:5])}{more}", faults=faults)


def _faults(entry: TargetEntry, before: TargetEntry | None, held: Held) -> list[str]:
    if before == entry:
        return []
    if before is not None:
        return [f"{entry.path} is on the list already, with other particulars; versions never change"]
    found = held(entry.model, entry.version)
    if found is None:
        return [f"{entry.path} is not in the registry: push the bundle first"]
    faults = []
    if found != (entry.digest, entry.size):
        faults.append(
            f"{entry.path} is {found[0]} of {found[1]} bytes here, the list says {entry.digest}, {entry.size}"
        )
    if entry.counter < 1:
        faults.append(f"{entry.path} has the counter {entry.counter}, expected 1 or more")
    return faults


def state_by_list(listed: SignedList, digest: str, *, was: VersionState) -> VersionState:
    """Return the state of a version under a new list.

    Args:
        listed: The new list.
        digest: Of the version.
        was: Until now; a version that was never on a list is not revoked by not being on it.
    """
    if digest in listed.deny:
        return VersionState.DENIED
    if listed.revocation(digest) is None:
        return VersionState.RELEASED
    named = listed.find(digest) is not None
    return VersionState.UNSIGNED if was is VersionState.UNSIGNED and not named else VersionState.REVOKED
