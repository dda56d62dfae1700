"""A bundle served, or asked once, with no server and no state: what ``run --bundle`` and ``predict --bundle`` do.

Owns reading rows from files. Digests are verified, signatures are not: whoever passes a file vouches for it.
"""

from __future__ import annotations

import csv
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from shoal_agent.domain.fit import DeviceFacts, misfits, variant_for
from shoal_agent.errors import UnfitError
from shoal_agent.runtime.batching import Batching
from shoal_agent.runtime.bundle_files import BundleFiles, open_bundle
from shoal_agent.runtime.model import LoadedModel
from shoal_agent.runtime.prediction import Prediction
from shoal_agent.runtime.slots import SlotTable
from shoal_agent.serving.front import Front
from shoal_agent.serving.plain_rows import answer_document, parse_rows
from shoal_agent.stopping import wait_for
from shoal_protocol.bundle.layout import BUNDLE_JSON
from shoal_protocol.bundle.schema import FieldSpec, parse_bundle_info
from shoal_protocol.errors import CallerError, ContentError

_log = logging.getLogger(__name__)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


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
    front = Front(slots, listen, insecure=insecure)  # first: a wrong address needs no model to be told
    model = load_bundle(path, options=options)
    name = slot or model.name
    serving = (name, f"{model.name}:{model.version}", model.digest)
    slots.install(name, model)
    urls = front.start()
    try:
        announce(Serving(" and ".join(urls), *serving))
        wait_for(stop)
    finally:
        front.stop()


def predict_bundle(path: Path, source: Path | None, *, options: RunOptions = RunOptions()) -> dict[str, Any]:
    """Ask a bundle once.

    Args:
        path: The bundle.
        source: Rows as ``.json`` or ``.csv``, tensors or columns as ``.npz``; none: JSON rows from standard input.
        options: How the model is run.

    Returns:
        A JSON-like document: ``bundle``, ``version``, ``digest``, ``predictions`` (one object a row).

    Raises:
        ShoalError: The bundle can't be loaded, or the input does not fit.
    """
    model = load_bundle(path, options=options)
    return answer_document(predict_file(model, source), model.schema)


def predict_file(model: LoadedModel, source: Path | None) -> Prediction:
    """Answer the rows or tensors of a file.

    Raises:
        CallerError: There is no such file, or it is of another kind.
        InputError: It does not fit the bundle's schema.
    """
    if source is None or str(source) == "-":
        return model.predict_rows(parse_rows(sys.stdin.buffer.read()))
    if not source.is_file():
        raise CallerError(f"there is no input file {source}")
    match source.suffix.lower():
        case ".json":
            return model.predict_rows(parse_rows(source.read_bytes()))
        case ".csv":
            return model.predict_rows(_csv_rows(source, {field.name: field for field in model.schema.inputs}))
        case ".npz":
            with np.load(source, allow_pickle=False) as arrays:
                return model.predict({name: arrays[name] for name in arrays.files})
    raise CallerError(f"{source} ends with {source.suffix!r}, expected .json, .csv or .npz")


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


def _csv_rows(source: Path, fields: Mapping[str, FieldSpec]) -> list[dict[str, Any]]:
    """Read a CSV file with a head line; an empty cell is a missing value, columns of no feature are left out."""
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return [
            {name: _cell(text, fields[name], (name, line)) for name, text in row.items() if name in fields}
            for line, row in enumerate(reader, start=2)
        ]


def _cell(text: str | None, field: FieldSpec, where: tuple[str, int]) -> Any:
    if text is None or text == "":
        return None
    if field.dtype == "string":
        return text
    try:
        if field.dtype == "bool":
            return _TRUTHS[text.strip().lower()]
        return float(text) if field.dtype.startswith("float") else int(text)
    except (ValueError, KeyError) as error:
        column, line = where
        raise CallerError(f"line {line}, column {column!r}: expected {field.dtype}, got {text!r:.60}") from error
