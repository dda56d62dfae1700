"""A status in words, for people at the device: what ``shoal-agent status`` prints and what the service manager shows.

Reads the document that ``status --json`` prints; bundles are called by name and a short digest, the whole of which the
document has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from shoal_agent.updating.bundle_names import shown
from shoal_protocol.bundle.layout import MODEL_ONNX

Document = Mapping[str, Any]


def described(status: Document) -> Iterator[str]:
    """Yield the lines of a status."""
    how = "running" if status["running"] else "not running"
    link = status["link"]
    line = f"connected by {link['protocol']}" if status["connected"] else "no connection to the server"
    yield f"{status['device']}: {how}{', ' + line if status['running'] else ''}, generation {status['generation']}"
    if status["running"] and link["fault"]:
        yield f"  link: {link['fault']['code']}: {link['fault']['message']}"
    if status["hold"]:
        hold = status["hold"]
        end = f"until {hold['until']}" if hold["until"] else "until `shoal-agent unhold`"
        yield f"  updates are on hold since {hold['since']}, {end}{': ' + hold['reason'] if hold['reason'] else ''}"
    for name, slot in status["slots"].items():
        yield from _slot(name, slot)
    spool = status["spool"]
    yield f"  spool: {spool['windows']} windows, {spool['bytes']} bytes, {spool['dropped']} dropped"
    if status["refused"]:
        yield f"  refused: {status['refused']['code']}: {status['refused']['message']}"
    if not status["clock"]["plausible"]:
        yield f"  clock: implausible; using {status['clock']['reference']}, the newest time that the server signed"


def readiness(status: Document) -> str:
    """Return the line that ``systemctl status`` shows."""
    slots = [f"{name}: {_active(slot) if slot['active'] else 'no model'}" for name, slot in status["slots"].items()]
    return f"{status['device']}: {', '.join(slots) or 'nothing is assigned yet'}"


def _slot(name: str, slot: Document) -> Iterator[str]:
    yield f"  {name}: {slot['state']}, active {_active(slot)}"
    if slot["variant"] not in {None, "", MODEL_ONNX}:
        yield f"    variant: {slot['variant']}"
    if slot["target"] not in {None, slot["active"]}:
        yield f"    wanted: {shown(slot['target'], slot['name'])}"
    if slot["trial"]:
        trial = slot["trial"]
        so_far = f"{trial['predictions']} calls, {trial['errors']} errors, {trial['elapsed_s']:.0f} s"
        yield f"    trial so far: {so_far} (trial.predictions or trial.seconds end it)"
    engine = slot["engine"] or {}
    if engine.get("fallback"):
        yield f"    runs on {engine['providers'][0]}: {engine['fallback']}"
    if slot["shadow"]:
        yield _shadow(slot["shadow"])
    if slot["sampling"]:
        yield _sampling(slot["sampling"])
    for key in ("error", "waiting"):
        if slot[key]:
            yield f"    {key}: {slot[key]['code']}: {slot[key]['message']}"


def _active(slot: Document) -> str:
    """Return the active bundle: by its own name, else as the assignment calls it."""
    digest = slot["active"]
    if digest is None:
        return "nothing"
    return shown(digest, slot["bundle"] or (slot["name"] if digest == slot["target"] else None))


def _shadow(shadow: Document) -> str:
    """Return a line about the bundle that sees the same inputs and answers nobody."""
    fault = shadow["error"]
    told = f": {fault['code']}: {fault['message']}" if fault else ""
    return f"    shadow: {shown(shadow['digest'], shadow.get('bundle'))} is {shadow['state']}{told}"


def _sampling(told: Document) -> str:
    end = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(told["until"] / 1000))
    return f"    raw rows are sampled: {100 * told['share']:g} % of them until {end}, {told['rows_sent']} sent so far"
