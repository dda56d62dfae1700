"""The light agent: pulls, verifies, activates, answers, observes and reports."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal_agent.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> Any:
    """Import the agent when it is asked for, so that importing the package costs nothing (PEP 562)."""
    if name == "Agent":
        from shoal_agent.agent import Agent  # noqa: PLC0415

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
