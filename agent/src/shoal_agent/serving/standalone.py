"""A bundle loaded and served with no server and no state: ``run --bundle``, and how ``predict --bundle`` begins.

Digests are verified, signatures are not: whoever passes a file vouches for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shoal_agent.domain.fit import DeviceFacts, misfits, variant_for
from shoal_agent.errors import UnfitError
from shoal_agent.runtime.batching import Batching
from shoal_agent.runtime.bundle_files import BundleFiles, open_bundle
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.front import Front
from shoal_agent.stopping import wait_for
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.schema import parse_bundle_info
from shoal_protocol.errors import ContentError

_log = logging.getLogger(__name__)


class Serving(msgspec.Struct, frozen=True):
    """What a running interface serves, for telling the user.

    Attributes:
        url: Where: ``http://127.0.0.1:8130`` or ``unix:PATH``; of several, with "and" between.
        slot: The model's name in URLs.
        bundle: ``name:version``.
        digest: The bundle's.
    """

    url: str
    slot: str
    bundle: str
    digest: str


@dataclass(frozen=True)
class RunOptions:
    """How a bundle's model is run; the settings of the same names say what each means.

    Attributes:
        threads: Within an operator; none: as the bundle says.
        facts: What this machine is, which chooses the variant and its execution providers; none: the first variant
            on the processor.
        batching: How far calls at the same time are answered together; none: each by itself.
    """

    threads: int | None = None
    facts: DeviceFacts | None = None
    batching: Batching | None = None


def load_bundle(path: Path, *, options: RunOptions = RunOptions()) -> LoadedModel:
    """Load a bundle from an OCI layout (a folder or a ``.tar``) and run its self-test, where it has one.

    Raises:
        ContentError: The bundle is damaged, or its golden rows come out wrong on this machine.
    """
    model = _load(open_bundle(path), options)
    if model.golden is not None:
        outcome = model.self_test()
        if not outcome.passed:
            raise ContentError(
                f"{model.name}:{model.version} fails its self-test on this machine: {'; '.join(outcome.faults)}",
                hint="compare the onnxruntime versions here and where it was packed",
            )
    return model


def serve_bundle(
    path: Path,
    *,
    listen: str,
    stop: threading.Event,
    announce: Callable[[Serving], None],
    slot: str | None = None,
    options: RunOptions = RunOptions(),
    insecure: bool = False,
) -> None:
    """Serve a bundle until told to stop.

    Args:
        path: The bundle.
        listen: ``127.0.0.1:8130``, ``unix:PATH``, or both with a comma between.
        stop: Set by whoever ends the program.
        announce: Called once, when requests are answered.
        slot: Name of the model in URLs; none: the bundle's own name.
        options: How the model is run.
        insecure: Allow an address that other machines reach.

    Raises:
        ShoalError: The bundle can't be loaded, or the address not be listened on.
    """
    slots = SlotTable()
    front = Front(listen, insecure=insecure)
    front.open()  # first: a wrong address needs no model to be told
    try:
        model = load_bundle(path, options=options)
        name = slot or model.name
        serving = (name, f"{model.name}:{model.version}", model.digest)
        slots.install(name, model)
        urls = front.start(slots)
        announce(Serving(" and ".join(urls), *serving))
        wait_for(stop)
    finally:
        front.stop()


def _load(files: BundleFiles, options: RunOptions) -> LoadedModel:
    if options.facts is None:
        return LoadedModel.load(files, threads=options.threads, batching=options.batching)
    info, facts = parse_bundle_info(files.read(BUNDLE_JSON)), options.facts
    faults = misfits(info, facts)
    variant = variant_for(info, facts)
    if faults or variant is None:
        raise UnfitError(f"{info.name}:{info.version} can't run here: {'; '.join(faults)}")
    place = facts.place(variant)
    model = LoadedModel.load(
        files, variant=variant.path, threads=options.threads, providers=place.names, batching=options.batching
    )
    if place.missing:
        _log.warning("it runs on %s: the onnxruntime here has no %s", place.names[0], ", ".join(place.missing))
    return model
