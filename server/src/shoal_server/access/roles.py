"""Roles and principals: the words in which permission is asked. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """What a person or an API token may do; each role may do all that the ones before it may."""

    VIEWER = "viewer"  # sees everything that is no secret
    OPERATOR = "operator"  # enrols devices; creates, pauses, aborts and takes back rollouts
    RELEASER = "releaser"  # pushes models, moves aliases, denies versions
    ADMIN = "admin"  # people, tokens of others, the server itself

    def includes(self, other: "Role") -> bool:
        """Tell whether this role may do what `other` may."""
        return _ORDER[self] >= _ORDER[other]


_ORDER = {role: place for place, role in enumerate(Role)}


@dataclass(frozen=True)
class Principal:
    """Who makes a request, as proven by its credentials."""

    name: str
    """A person's name, a token's name or a device's id."""
    kind: Literal["person", "token", "device"]
    role: Role | None
    """None for devices: they have rights of their own, never a role."""
    device: str | None = None
    """The device's id when `kind` is `device`."""

    @property
    def actor(self) -> str:
        """How the audit names this principal, such as `person:admin`."""
        return f"{self.kind}:{self.name}"

    def may(self, role: Role) -> bool:
        """Tell whether this principal holds `role` or a higher one."""
        return self.role is not None and self.role.includes(role)
