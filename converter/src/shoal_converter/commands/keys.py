"""``shoal-convert keys``: root and release keys, from the first to the last day.

Owns arguments, order and words. A user meets "root key", "release key" and "the signed list", never the names of TUF's
roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from shoal_converter.errors import KeyUnusableError
from shoal_converter.registry import Registry
from shoal_converter.settings import load_settings
from shoal_converter.signing.authority import Authority, change_list
from shoal_converter.signing.handover import (
    Proposal,
    bring,
    lacking,
    new_key_set,
    propose,
    read_proposal,
    sign_proposal,
    write_proposal,
)
from shoal_converter.signing.keyring import KINDS, KeyEntry, Keyring, Keys
from shoal_converter.signing.pipeline import pause
from shoal_converter.signing.releases import LIFETIME, Change, revoke, set_denied, sign_again
from shoal_converter.signing.signers import Opener, passphrase_reader
from shoal_converter.terminal import Terminal
from shoal_protocol.errors import CallerError
from shoal_protocol.refs import parse_ref

ROOT_LIFETIME = timedelta(days=730)
"""How long devices believe a root; rotating it makes the next."""


@dataclass(frozen=True)
class Where:
    """What every command of this group is told."""

    folder: Path
    url: str | None
    token_file: Path | None
    passphrase_file: Path | None
    terminal: Terminal

    def keyring(self) -> Keyring:
        """Return the folder of keys."""
        return Keyring(self.folder, Opener(passphrase_reader(self.passphrase_file, ask=_asked)))

    @contextmanager
    def authority(self, memory: Keyring | None) -> Iterator[Authority]:
        """Open the server."""
        settings = load_settings(url=self.url, token_file=self.token_file)
        with Registry(settings.url, token=settings.token, ca=settings.ca) as registry:
            yield Authority(registry, memory)


def init(
    where: Where,
    *,
    root_keys: int,
    threshold: int,
    addresses: dict[str, Sequence[str]],
    protect: bool,
    adopt_at_once: bool,
) -> None:
    """Make root and release keys, and hand a server's trust to them when one is named."""
    keyring = where.keyring()
    if (where.folder / "keyring.json").exists():
        raise CallerError(f"there are keys in {where.folder} already", hint="name another folder by --dir")
    if not 1 <= threshold <= (len(addresses["root"]) or root_keys):
        raise CallerError(f"{threshold} of {root_keys} root keys can't sign", hint="raise --root-keys")
    passphrase = _new_passphrase(where, protect=protect)
    made: dict[str, list[KeyEntry]] = {}
    for kind, count in (("root", root_keys), ("release", 1)):
        elsewhere = addresses[kind]
        made[kind] = [keyring.take(address) for address in elsewhere] or [
            keyring.make(kind, passphrase=passphrase) for _ in range(count)
        ]
    keys = Keys(root=new_key_set(made["root"], threshold), release=new_key_set(made["release"], 1))
    keyring.save(keys)
    if adopt_at_once:
        adopt(where, export=None)
        return
    if where.terminal.json_wanted:
        where.terminal.json(_shown(keys, keyring))
        return
    _print_keys(where.terminal, keys, keyring)
    click.echo(f"\nNext: shoal-convert keys adopt --dir {where.folder} --url URL   (with an administrator's token)")


def adopt(where: Where, *, export: Path | None) -> None:
    """Hand a development-trust server to the keys of this folder."""
    keyring = where.keyring()
    keys = keyring.keys()
    with where.authority(keyring) as authority:
        proposal = propose(authority, keys, expires=_until(ROOT_LIFETIME))
        _finish(where, authority, keyring, proposal, keys.root.keys, export=export)


def rotate(where: Where, kind: str, *, address: str | None, keep_old: bool, protect: bool, export: Path | None) -> None:
    """Replace the release key, a root key, or the server's own keys."""
    keyring = where.keyring()
    keys = keyring.keys()
    with where.authority(keyring) as authority:
        online = authority.next_online_keys() if kind == "online" else None
        new = keys
        if kind in KINDS:
            passphrase = _new_passphrase(where, protect=protect)
            made = keyring.take(address) if address else keyring.make(kind, passphrase=passphrase)
            old = keys.release if kind == "release" else keys.root
            kept = list(old.keys) if keep_old else list(old.keys)[1:] if kind == "root" else []
            new = _with(keys, kind, [*kept, made], old.threshold)
        proposal = propose(authority, new, expires=_until(ROOT_LIFETIME), online=online)
        signers = {entry.keyid: entry for entry in (*keys.root.keys, *new.root.keys)}
        _finish(where, authority, keyring, proposal, list(signers.values()), export=export)
    if kind in KINDS and not where.terminal.json_wanted:
        where.terminal.facts([(f"new {kind} key", f"{made.keyid[:12]}  {made.address}")])


def remove(where: Where, keyid: str, *, export: Path | None) -> None:
    """Take a root or release key out of the root: nothing that it signs counts any more."""
    keyring = where.keyring()
    keys = keyring.keys()
    found = [
        (kind, e) for kind in KINDS for e in _set(keys, kind).keys if len(keyid) >= 4 and e.keyid.startswith(keyid)
    ]
    if len(found) != 1:
        raise CallerError(f"{keyid!r} names {len(found)} of the keys in {where.folder}", hint="shoal-convert keys show")
    kind, entry = found[0]
    left = [other for other in _set(keys, kind).keys if other != entry]
    if not left:
        raise CallerError(f"this is the only {kind} key", hint=f"replace it: shoal-convert keys rotate {kind}")
    new = _with(keys, kind, left, min(_set(keys, kind).threshold, len(left)))
    with where.authority(keyring) as authority:
        proposal = propose(authority, new, expires=_until(ROOT_LIFETIME))
        _finish(where, authority, keyring, proposal, keys.root.keys, export=export)


def sign(where: Where, path: Path, address: str) -> None:
    """Sign an exported root, on whatever machine has the key; needs no network."""
    opener = Opener(passphrase_reader(where.passphrase_file, ask=_asked))
    proposal = read_proposal(path)
    named = {entry.keyid for entry in proposal.keys.root.keys}
    signer = opener.open(address)
    signed = sign_proposal(proposal, [signer])
    write_proposal(path, signed, replace=True)
    keyid = signer.public_key.keyid
    note = "" if keyid in named else " (it is no root key of the new root; it counts if it was one of the old)"
    root = signed.metadata().signed
    where.terminal.facts(
        [
            ("signed", f"root version {root.version} with the key {keyid[:12]}{note}"),
            ("root keys", ", ".join(key[:12] for key in root.roles["root"].keyids)),
            ("release keys", ", ".join(key[:12] for key in root.roles["targets"].keyids)),
            ("next", f"shoal-convert keys import {path}   (where the release key is)"),
        ]
    )


def bring_back(where: Where, path: Path) -> None:
    """Send an exported root that is fully signed."""
    keyring = where.keyring()
    with where.authority(keyring) as authority:
        _tell_root(where, bring(authority, keyring, read_proposal(path), until=_until_list()))


def change(where: Where, address: str | None, changes: Change, done: str) -> None:
    """Change the signed list with a release key."""
    keyring = where.keyring()
    opener = Opener(passphrase_reader(where.passphrase_file, ask=_asked))
    signer = opener.open(address) if address else keyring.signer(_release_key(keyring))
    memory = keyring if (where.folder / "keyring.json").exists() else None
    with where.authority(memory) as authority:
        listed = change_list(authority, signer, changes, wait=pause).signed
    if where.terminal.json_wanted:
        where.terminal.json({"version": listed.version, "expires_at": _date(listed.expires)})
    else:
        where.terminal.facts(
            [("done", done), ("list", f"version {listed.version}"), ("expires", _date(listed.expires))]
        )


def resign(where: Where, address: str | None, days: int) -> None:
    """Sign the list again, so that it expires later."""
    change(where, address, sign_again(until=_until(timedelta(days=days))), "signed the list of releases again")


def revoke_release(where: Where, ref: str, address: str | None, *, below: bool) -> None:
    """Take a release off the signed list."""
    what = f"revoked {ref}{' and all before it' if below else ''}: no device installs it or returns to it"
    change(where, address, revoke(parse_ref(ref), until=_until_list(), below=below), what)


def deny_release(where: Where, ref: str, address: str | None, *, denied: bool) -> None:
    """Bar a listed release, or lift that."""
    what = f"denied {ref}" if denied else f"allowed {ref} again"
    change(where, address, set_denied(parse_ref(ref), denied=denied, until=_until_list()), what)


def show(where: Where) -> None:
    """Show the keys here, and what the server says."""
    keyring = where.keyring()
    keys = keyring.keys()
    found = None
    if where.url or where.token_file:
        with where.authority(keyring) as authority:
            found = authority.status()
    if where.terminal.json_wanted:
        where.terminal.json({**_shown(keys, keyring), "server": found})
        return
    _print_keys(where.terminal, keys, keyring)
    if found is not None:
        listed = found["list"]
        click.echo()
        rows = [
            ("server", found["meaning"]),
            ("root", f"version {found['root']['version']}, expires {found['root']['expires_at']}"),
            ("list", f"version {listed['version']}, {listed['releases']} releases, expires {listed['expires_at']}"),
        ]
        where.terminal.facts([*rows, *(("warning", line) for line in found["warnings"])])


def _finish(
    where: Where,
    authority: Authority,
    keyring: Keyring,
    proposal: Proposal,
    signing: Sequence[KeyEntry],
    *,
    export: Path | None,
) -> None:
    """Sign with the root keys that are here; send it, or write it down for the others."""
    signed = sign_proposal(proposal, keyring.signers_here(signing))
    missing = lacking(signed, authority.root().signed)
    if export is not None:
        write_proposal(export, signed)
        where.terminal.facts(
            [
                ("written", str(export)),
                ("lacks", missing or "nothing"),
                ("next", f"shoal-convert keys sign {export} --key KEY   (on each machine with a root key)"),
            ]
        )
        return
    if missing:
        raise KeyUnusableError(
            f"root keys that are not here have to sign: {missing}",
            hint="write it down by --export FILE, sign it there with `keys sign`, and send it with `keys import`",
        )
    _tell_root(where, bring(authority, keyring, signed, until=_until_list()))


def _tell_root(where: Where, answer: dict[str, Any]) -> None:
    if where.terminal.json_wanted:
        where.terminal.json(answer)
        return
    deleted = ", ".join(answer.get("deleted_keys") or [])
    rows = [
        ("root", f"version {answer['version']} ({answer['digest'][:19]}…)"),
        ("trust", "release keys: the server signs no releases any more, `push --key` does"),
    ]
    where.terminal.facts([*rows, *([("deleted", f"at the server: {deleted}")] if deleted else [])])
    click.echo(f"\nKeep {where.folder} safe and backed up: whoever has its root keys decides what devices believe.")


def _release_key(keyring: Keyring) -> KeyEntry:
    here = [entry for entry in keyring.keys().release.keys if keyring.is_here(entry)]
    if not here:
        raise KeyUnusableError(f"no release key is in {keyring.folder}", hint="name it by --key")
    return here[0]


def _set(keys: Keys, kind: str) -> Any:
    return keys.root if kind == "root" else keys.release


def _with(keys: Keys, kind: str, entries: Sequence[KeyEntry], threshold: int) -> Keys:
    made = new_key_set(entries, threshold)
    return Keys(root=made, release=keys.release) if kind == "root" else Keys(root=keys.root, release=made)


def _shown(keys: Keys, keyring: Keyring) -> dict[str, Any]:
    def described(kind: str) -> dict[str, Any]:
        entries = [
            {"keyid": entry.keyid, "address": entry.address, "here": keyring.is_here(entry)}
            for entry in _set(keys, kind).keys
        ]
        return {"threshold": _set(keys, kind).threshold, "keys": entries}

    return {"dir": str(keyring.folder), **{kind: described(kind) for kind in KINDS}}


def _print_keys(terminal: Terminal, keys: Keys, keyring: Keyring) -> None:
    rows = []
    for kind in KINDS:
        needed = _set(keys, kind).threshold
        for entry in _set(keys, kind).keys:
            place = "here" if keyring.is_here(entry) else "elsewhere"
            rows.append((kind, entry.keyid[:12], entry.address, place, f"{needed} of {len(_set(keys, kind).keys)}"))
    terminal.table(("KEY", "ID", "ADDRESS", "WHERE", "MUST SIGN"), rows)


def _new_passphrase(where: Where, *, protect: bool) -> bytes | None:
    if where.passphrase_file is not None:
        return passphrase_reader(where.passphrase_file)("new keys")
    if not protect:
        return None
    text: str = click.prompt("Passphrase for the new keys", hide_input=True, confirmation_prompt=True, err=True)
    return text.encode()


def _asked(what: str) -> bytes:
    text: str = click.prompt(f"Passphrase of {what}", hide_input=True, err=True)
    return text.encode()


def _until(span: timedelta) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + span


def _until_list() -> datetime:
    return _until(LIFETIME)


def _date(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M UTC")
