"""Who calls and what they may do: people, API tokens, sessions, roles, and the audit of every change."""

from shoal_server.access.roles import Principal, Role

__all__ = ["Principal", "Role"]
