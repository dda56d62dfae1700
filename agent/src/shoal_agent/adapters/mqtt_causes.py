"""Why a broker did not do what was asked of it, in words that say what to do.

MQTT 5 gives a reason with every refusal and with a server's goodbye (OASIS "MQTT Version 5.0", 2.4); of MQTT 3.1.1
there are the codes of CONNACK only, which paho tells by the same names. Names are stable, unlike the numbers of 3.1.1.
"""

from __future__ import annotations

from shoal_agent.ports import LinkFault

TOO_LARGE = "packet_too_large"

_CAUSES = {
    "Bad user name or password": ("login", "does not take this device's credentials"),
    "Not authorized": ("not_authorised", "does not let this device do that: its access rules are not Shoal's"),
    "Client identifier not valid": ("client_id", "does not take this device's name"),
    "Banned": ("banned", "has banned this device"),
    "Session taken over": ("taken_over", "saw another login as this device: is there a copy of it?"),
    "Administrative action": ("kicked", "was told to end this device's session"),
    "Quota exceeded": ("quota", "has a quota that is used up"),
    "Packet too large": (TOO_LARGE, "takes no messages of this size"),
    "Receive maximum exceeded": ("rate", "takes fewer messages at once than this device sends"),
    "Message rate too high": ("rate", "finds that this device sends too fast"),
    "Connection rate exceeded": ("rate", "takes no more connections at this rate"),
    "Server busy": ("busy", "is busy"),
    "Server unavailable": ("busy", "is not available"),
    "Server shutting down": ("stopping", "is shutting down"),
    "Keep alive timeout": ("silent", "heard nothing from this device for too long"),
    "Use another server": ("moved", "wants this device to use another address"),
    "Server moved": ("moved", "has moved to another address"),
    "Unsupported protocol version": ("version", "does not speak this version of MQTT"),
    "No matching subscribers": ("unheard", "has nobody who listens to this device: is the server connected to it?"),
}


def cause(reason: object, *, doing: str) -> LinkFault:
    """Return a known cause of a refusal.

    Args:
        reason: As paho gives it; its text is the standard's name of the code.
        doing: What was refused: ``login``, ``publishing``.
    """
    name = str(reason)
    code, words = _CAUSES.get(name, ("refused", f"says: {name}"))
    return LinkFault(code, f"the broker {words} (at {doing})")
