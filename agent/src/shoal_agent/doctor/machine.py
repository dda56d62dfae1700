"""Checks of the machine: architecture, processor, memory, onnxruntime, and the disk under the state folder."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

from shoal_agent.doctor.findings import Finding, note, ok, wrong
from shoal_agent.machine import device_facts
from shoal_agent.ports import Clock
from shoal_agent.serving.listen import open_listener, parse_listens
from shoal_protocol.errors import ShoalError

PLATFORMS = frozenset({"linux/amd64", "linux/arm64"})
LOW_DISK_BYTES = 256 << 20
SLOW_SYNC_S = 1.0
_NO_DISK = frozenset({"tmpfs", "ramfs", "overlay"})
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})


def architecture() -> Finding:
    """Check that an onnxruntime exists for this processor, and that this Python is a 64-bit one."""
    bits, platform = struct.calcsize("P") * 8, device_facts().platform
    if bits < 64:
        return wrong(
            "architecture",
            f"{platform} with a {bits}-bit Python",
            "there is no onnxruntime for 32-bit systems: install a 64-bit system (a Raspberry Pi 3 and later can)",
        )
    if platform not in PLATFORMS:
        return wrong("architecture", platform, f"bundles run on {' and '.join(sorted(PLATFORMS))}")
    return ok("architecture", f"{platform}, {bits}-bit Python")


def processors(threads: int | None) -> Finding:
    """Check the configured threads against the processors that this process may use."""
    usable = len(os.sched_getaffinity(0))
    memory = f"{device_facts().memory_bytes / (1 << 30):.1f} GiB of memory"
    if threads is not None and threads > usable:
        return note(
            "threads", f"threads = {threads}, but {usable} processors may be used here", f"set threads to {usable}"
        )
    told = "as each bundle says" if threads is None else str(threads)
    return ok("threads", f"{usable} processors, {memory}; threads of onnxruntime: {told}")


def local_interface(listen: str, *, runs: bool) -> Finding:
    """Check that the addresses of the local HTTP API can be had.

    Args:
        listen: As in the settings.
        runs: Whether the agent of this folder runs, and so has them.
    """
    try:
        addresses = parse_listens(listen, insecure=True)  # whether that is said is known to `run` alone
        for address in () if runs else addresses:
            open_listener(address).close()
            if address.path is not None:
                address.path.unlink(missing_ok=True)
    except ShoalError as error:
        return wrong("local_api", error.message, "set listen to another address, or end what listens there")
    if not addresses:
        return ok("local_api", "switched off (listen = none)")
    return ok("local_api", f"{listen}{': the agent that runs here has it' if runs else ' is free'}")


def runtime() -> Finding:
    """Check that onnxruntime can be imported, and say what it can run on."""
    from shoal_agent.runtime.engine import available_providers, import_onnxruntime  # noqa: PLC0415 - it comes with it

    try:
        version = import_onnxruntime().__version__
    except (ImportError, OSError) as error:
        return wrong("onnxruntime", f"it can't be imported: {error}", "install it here: pip install onnxruntime")
    return ok("onnxruntime", f"{version}, execution providers: {', '.join(available_providers())}")


def disk(folder: Path, *, clock: Clock = time.monotonic) -> list[Finding]:
    """Check the room on the disk of the state folder, what kind it is, and how long it takes to make a write last."""
    return [_room(folder), _kind(folder), _sync(folder, clock)]


def _room(folder: Path) -> Finding:
    disk = os.statvfs(folder)
    free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else None
    told = f"{free / (1 << 20):.0f} MiB free" + ("" if inodes is None else f", {inodes} more files")
    if free == 0 or inodes == 0:
        return wrong("disk_room", told, "make room: nothing can be installed or kept for the server")
    if free < LOW_DISK_BYTES:
        return note("disk_room", told, "a model needs 1.1 times its size for an update, and the spool its budget")
    return ok("disk_room", told)


def _kind(folder: Path) -> Finding:
    kind = file_system(folder, Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    if kind in _NO_DISK:
        return note("file_system", kind, "what lies here may not outlive a restart: put the state folder on a disk")
    if kind in _NETWORK:
        return note("file_system", kind, "locks and syncs over a network are not to be relied on: use a local disk")
    return ok("file_system", kind)


def file_system(folder: Path, mounts: str) -> str:
    """Return the kind of file system that a folder lies on.

    Args:
        folder: Which.
        mounts: Content of ``/proc/self/mounts``.
    """
    place, best, kind = folder.resolve(), -1, "unknown"
    for line in mounts.splitlines():
        _, at, found, *_ = line.split(" ")
        mount = Path(at.replace("\\040", " "))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), found
    return kind


def _sync(folder: Path, clock: Clock) -> Finding:
    """Write, sync and delete one small file, as each save of the state does."""
    path = folder / f"doctor-{os.getpid()}.tmp"
    began = clock()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, b"shoal")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return wrong(
            "disk_sync",
            f"a file can't be written in {folder}: {error.strerror}",
            "run as the agent's user; look at the disk (full, read-only, failing: dmesg)",
        )
    finally:
        with suppress(OSError):
            path.unlink()
    took = clock() - began
    if took > SLOW_SYNC_S:
        return note("disk_sync", f"a write took {took:.1f} s to last", "a worn or busy card? the agent waits for it")
    return ok("disk_sync", f"a write lasts after {took * 1000:.1f} ms")
