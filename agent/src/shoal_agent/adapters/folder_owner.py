"""Going on as the user whose folder it is, where root is asked to write into the folder of another user.

A service's state belongs to the service's user. What root would leave in it, the service could not read, and would not
start again; and whoever owns a folder could have root write through links in it. So root becomes that user for good,
as `su` would, before it touches the folder. Nobody but root is concerned.
"""

from __future__ import annotations

import logging
import os
import pwd
import sys
from contextlib import suppress
from pathlib import Path

from shoal_agent.errors import StateFolderError

_log = logging.getLogger(__name__)


def as_owner(folder: Path) -> Path:
    """Go on as the user whom a folder belongs to, if this process is root and the folder is not root's.

    Args:
        folder: The state folder; one that is not there is nobody's.

    Returns:
        The folder.

    Raises:
        StateFolderError: That user can't read this program.
    """
    try:
        about = folder.stat()
    except OSError:  # whoever uses the folder says what is wrong with it
        return folder
    if os.geteuid() != 0 or about.st_uid == 0:
        return folder
    try:
        user = pwd.getpwuid(about.st_uid)
        name, group = user.pw_name, user.pw_gid
    except KeyError:  # of another system, or of a container
        name, group = str(about.st_uid), about.st_gid
    try:
        os.seteuid(about.st_uid)
    except PermissionError:  # a root that may not change to anybody, such as in a container without capabilities
        _log.debug("going on as root: this process may not become %s", name)
        return folder
    hidden = _hidden_part()
    os.seteuid(0)
    if hidden is not None:
        raise StateFolderError(
            f"{folder} belongs to {name}, who can't read this program: {hidden}",
            hint="install the agent where all can read it, such as /opt/shoal-agent",
        )
    _become(name, about.st_uid, group)
    _log.debug("going on as %s, whom %s belongs to", name, folder)
    return folder


def _become(name: str, user: int, group: int) -> None:
    with suppress(PermissionError):  # some containers forbid it; the groups of root are no more there than here
        os.initgroups(name, group)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _hidden_part() -> Path | None:
    """Return what of this program the effective user can't read: modules are imported when they are needed."""
    parts = (Path(sys.executable), Path(__file__), Path(os.__file__))
    return next((part for part in parts if not os.access(part, os.R_OK, effective_ids=True)), None)
