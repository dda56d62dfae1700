"""The change from one identity of a state folder to the next, of which a cut at any point leaves one that works.

    identity.new, trust.new   what a device joins into that gives its identity up; trust.new, where the root is another
    identity.old              the identity given up: from here on the new one is the folder's

The order is: everything that the network is needed for, into ``identity.new``, whose ``device.json`` comes last; the
old identity is moved aside, which decides; what it has not told yet in its name is deleted; the new one is moved in.
Models stay, and the trust root with what the device knows to be revoked or outdated, where it is the same one.

Leaves the lock on the state folder to the callers, who hold it.
"""

from __future__ import annotations

from pathlib import Path

from shoal_agent.adapters.durable import move, sync_folder
from shoal_agent.adapters.identity import IdentityFolder
from shoal_agent.errors import StateFolderError
from shoal_protocol.canonical import sha256_digest

HEIR = "identity.new"
_HOLDER, _FORMER = "identity", "identity.old"
_TRUST, _NEXT_TRUST, _ROOT = "trust", "trust.new", "root.pinned.json"


def heir_folders(state: Path, *, root_digest: str, ca_pinned: bool) -> tuple[Path, Path]:
    """Return where to join into: the folders of the identity and of its trust.

    A key that an earlier try made there is used again, because the server may know it already.

    Args:
        state: The state folder.
        root_digest: Of the trust root that the join token names.
        ca_pinned: Whether the token names a certificate authority.
    """
    heir = state / HEIR
    for name in ("device.json",) if ca_pinned else ("device.json", "ca.pem"):
        (heir / name).unlink(missing_ok=True)
    _delete(state / _NEXT_TRUST)
    same = _pinned(state / _TRUST) in {None, root_digest}
    return heir, state / (_TRUST if same else _NEXT_TRUST)


def succeed(state: Path) -> None:
    """Let the identity that was joined into take the place of the one before.

    Raises:
        StateFolderError: The disk does not take it; the next start goes on, once it was decided.
    """
    former = state / _FORMER
    try:
        _delete(former)
        if (state / _HOLDER).exists():
            move(state / _HOLDER, former)
        else:
            former.mkdir(mode=0o700)
            sync_folder(state)
        finish_succession(state)
    except OSError as error:
        raise _unfinished(state, error) from error


def finish_succession(state: Path) -> None:
    """Finish a succession that was cut off after it was decided; does nothing where there is none.

    Raises:
        StateFolderError: The disk does not take it.
    """
    holder, heir, former = state / _HOLDER, state / HEIR, state / _FORMER
    try:
        if not holder.exists() and (heir / "device.json").exists():
            if former.exists():
                _give_up(state)
            _install_trust(state, IdentityFolder(heir).load().root_digest)
            move(heir, holder)
        if former.exists() and holder.exists():
            _delete(former)
    except OSError as error:
        raise _unfinished(state, error) from error


def _give_up(state: Path) -> None:
    """Delete what a device has not told yet in the name that it gives up."""
    for path in (*state.glob("spool.db*"), *state.glob("labels.db*")):
        path.unlink(missing_ok=True)
    _delete(state / "counting")


def _install_trust(state: Path, root_digest: str) -> None:
    fresh = state / _NEXT_TRUST
    if _pinned(fresh) == root_digest:
        _delete(state / _TRUST)
        move(fresh, state / _TRUST)


def _delete(folder: Path) -> None:
    import shutil  # noqa: PLC0415 - 2 ms with its compressors, which a start should not pay

    shutil.rmtree(folder, ignore_errors=True)


def _pinned(trust: Path) -> str | None:
    try:
        return sha256_digest((trust / _ROOT).read_bytes())
    except FileNotFoundError:
        return None


def _unfinished(state: Path, error: OSError) -> StateFolderError:
    return StateFolderError(
        f"the new identity of {state} can't be moved in: {error.strerror}",
        hint="make the disk writable, then start the agent; join again if it still is the device that it was",
    )
