"""The agent's own errors, each under the family of whoever has to act."""

from __future__ import annotations

import errno

from shoal_protocol.errors import CallerError, ContentError, LocalError, PeerError, TrustError


class IllegalEventError(CallerError):
    """The slot machine has no transition for this event in this state; the state is unchanged."""

    code = "illegal_event"


class SettingsError(CallerError):
    """A setting is missing, unknown or of a wrong form."""

    code = "settings"


class NotEnrolledError(CallerError):
    """The state folder belongs to no device yet."""

    code = "not_enrolled"


class NoModelError(LocalError):
    """The slot has no runnable model."""

    code = "no_model"


class StateFolderError(LocalError):
    """The state folder can't be used: it is missing, no folder, or not this user's."""

    code = "state_folder"


class StateInUseError(LocalError):
    """Another agent holds the lock of the state folder."""

    code = "state_in_use"


class DamagedFileError(ContentError):
    """A file of the state folder fails its checksum or does not parse."""

    code = "damaged"


class LabelBookError(LocalError):
    """Labels can't be kept: the disk is full or failing, or too many wait for the server."""

    code = "label_book"


class UnfitError(ContentError):
    """The bundle does not fit this device: architecture, runtime version, memory or format."""

    code = "unfit"


class PreflightError(ContentError):
    """The model failed its self-test in the child process."""

    code = "preflight"


class ImplausibleTimeError(TrustError):
    """The server signed a time that neither this device's clock nor the release key's list speaks for."""

    code = "implausible_time"


class TransportError(PeerError):
    """A transfer broke off or was too slow; it is tried again, from where it stopped."""

    code = "transport"


class JudgeError(PeerError):
    """The process that judges signatures ended or fell silent; it is asked again later."""

    code = "judge"


class ListUnusableError(PeerError):
    """The signed list of releases can't be used now: it expired, or what the server sent can't be trusted."""

    code = "signed_list"


class CancelledError(PeerError):
    """A transfer was given up because something newer is wanted or the agent stops."""

    code = "cancelled"


class ParcelError(ContentError):
    """A parcel can't be read, lacks something, or is for another device."""

    code = "parcel"


class SpoolError(LocalError):
    """The spool can't be written: the disk is full or failing."""

    code = "spool"


class DiskFullError(LocalError):
    """There is not enough room on the state folder's disk."""

    code = "disk_full"


_DAMAGE = frozenset({errno.ENOENT, errno.EIO, errno.EUCLEAN, errno.EBADMSG})


def tells_of_damage(error: OSError) -> bool:
    """Tell whether a failed read says something about the file: it is gone, or the disk can't give it back.

    All else (no free descriptor, no memory, no permission just now) says nothing about it: look again later.
    """
    return error.errno in _DAMAGE
