"""Server-sent events: word to open pages that something on them is new.

Owns the stream at `/events`. An event carries no content: the page asks for itself again, so what it shows is always
what the stores say now, and a lost or doubled event does no harm. The id of an event is the position in all topics
that the page watches; a browser that reconnects sends it back (Last-Event-ID) and at once hears of what it missed.

A stream asks the counters a few times a second, in the event loop: it holds no thread, and a burst of changes becomes
one event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from shoal_server.access.guard import Program, Viewer
from shoal_server.signals import Signals

POLL_S = 0.5
TICK_S = 15.0
"""An idle page hears a tick this often, by which "a minute ago" stays true and a dead connection is noticed."""
LIFETIME_S = 900.0
"""After this the browser connects again, by which its session is checked again."""
_RETRY_MS = 2000

router = APIRouter(include_in_schema=False)


def position_of(signals: Signals, process: str, topics: Collection[str] | None = None) -> str:
    """Write the present position in some topics, or in all, as text that fits into an event's id.

    Args:
        signals: whose counters are written.
        process: a name of this process, since counters begin at 0 when it starts.
        topics: all when left out.
    """
    counters = signals.counters()
    return _written(counters, process, counters if topics is None else topics)


def look(signals: Signals, process: str, since: str, topics: Collection[str]) -> tuple[list[str], str]:
    """Return which of the topics are elsewhere than in a position, and the position at which all of them are told.

    Both are of one instant: what changes after it is told by the next look. All topics are elsewhere when the position
    is of another process.
    """
    known_process, _, rest = since.partition(".")
    known = dict(part.rsplit("-", 1) for part in rest.split(".") if "-" in part)
    counters = signals.counters()
    is_known = process == known_process
    changed = [topic for topic in topics if not is_known or known.get(topic, "0") != str(counters.get(topic, 0))]
    return sorted(changed), _written(counters, process, topics)


def _written(counters: Mapping[str, int], process: str, topics: Collection[str]) -> str:
    return ".".join([process, *(f"{topic}-{counters.get(topic, 0)}" for topic in sorted(set(topics)))])


async def stream(
    signals: Signals,
    process: str,
    topics: Collection[str],
    *,
    since: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[str]:
    """Yield the text of events until the stream's life is over or the program ends.

    Args:
        signals: what is listened to.
        process: see `position_of`.
        topics: what the page watches.
        since: the position that the page shows.
        sleep: waits between two looks.
    """
    yield f"retry: {_RETRY_MS}\n\n"
    quiet_s = 0.0
    for _ in range(round(LIFETIME_S / POLL_S)):
        if signals.closed:
            return
        changed, position = look(signals, process, since, topics)
        if changed:
            since = position
            yield f"id: {since}\nevent: changed\ndata: {' '.join(changed)}\n\n"
            quiet_s = 0.0
        elif quiet_s >= TICK_S:
            yield f"id: {since}\nevent: tick\ndata: -\n\n"
            quiet_s = 0.0
        await sleep(POLL_S)
        quiet_s += POLL_S


@router.get("/events")
async def events(
    request: Request,
    program: Program,
    _principal: Viewer,
    topics: Annotated[str, Query(max_length=200, pattern=r"^[a-z_]+(,[a-z_]+)*$")],
    after: Annotated[str, Query(max_length=1000)] = "",
    last_event_id: Annotated[str | None, Header(max_length=1000)] = None,
) -> StreamingResponse:
    """Tell a page when something under its topics changes."""
    watched = frozenset(topics.split(","))
    process = request.app.state.site.process
    since = last_event_id or after or position_of(program.signals, process, watched)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    frames = stream(program.signals, process, watched, since=since)
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)
