"""What updating needs of the outside world, as small protocols; `shoal_agent.testing` has a fake of each."""

from shoal_agent.ports.integrator import HoldSource, HookOutcome, Hooks
from shoal_agent.ports.labels import LabelBook, LabelCount
from shoal_agent.ports.link import Link, LinkFault, LinkHandlers, LinkReport
from shoal_agent.ports.preflight import Preflight, PreflightLimits, PreflightOutcome
from shoal_agent.ports.spool import Shed, Spool, Spooled, SpoolUsage
from shoal_agent.ports.storage import BlobStore, Needed, StateFile
from shoal_agent.ports.supply import DocumentSource, Fetcher, HeldBlob, Parcel, Trust
from shoal_agent.ports.work import Cancelled, Clock

__all__ = [
    "BlobStore",
    "Cancelled",
    "Clock",
    "DocumentSource",
    "Fetcher",
    "HeldBlob",
    "HoldSource",
    "HookOutcome",
    "Hooks",
    "LabelBook",
    "LabelCount",
    "Link",
    "LinkFault",
    "LinkHandlers",
    "LinkReport",
    "Needed",
    "Parcel",
    "Preflight",
    "PreflightLimits",
    "PreflightOutcome",
    "Shed",
    "Spool",
    "SpoolUsage",
    "Spooled",
    "StateFile",
    "Trust",
]
