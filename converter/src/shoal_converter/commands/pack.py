"""`shoal-convert pack`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_converter.bundle import OMS, Bundle
from shoal_converter.domain.parity import Tolerance
from shoal_converter.errors import OutputExistsError, SampleError
from shoal_converter.packing import parse_tag
from shoal_converter.sources.isolated import Examination, PackRequest, pack_isolated
from shoal_converter.sources.mlflow_address import fetched, is_address
from shoal_converter.sources.mlflow_folder import is_mlflow, read_mlflow
from shoal_converter.sources.model_file import Trust, check_trusted
from shoal_converter.sources.sample_file import check_sample_file
from shoal_converter.terminal import Terminal
from shoal_protocol.bundle.contract import parse_contract
from shoal_protocol.errors import CallerError
from shoal_protocol.yaml_nodes import repeated_keys

if TYPE_CHECKING:
    from securesystemslib.signer import Signer


def run(
    terminal: Terminal,
    *,
    source: Path,
    sample: Path | None,
    target: str | None,
    tag: str,
    output: Path | None,
    trust: Trust | None,
    trusted_types: tuple[str, ...],
    timeout: float,
    parent: Path | None,
    rtol: float,
    atol: float,
    max_label_flips: float,
    float64_inputs: bool,
    about: Path | None,
    licence: Path | None,
    meta: tuple[str, ...],
    force: bool,
    dry_run: bool,
    signer: Signer | None,
    **asked: Any,
) -> None:
    """Pack a model file; arguments as the command's options. What can be refused without work is refused first."""
    path = _free_path(output, tag, force=force)
    with _found(source, terminal) as found:
        check_trusted(found.path, trust=trust)
        sample = sample or found.example
        if sample is None:
            raise SampleError(
                "a sample is required: rows like those that the model was trained on",
                hint="--sample train.csv --target y; 1,000 typical rows are plenty",
            )
        check_sample_file(sample)
        examination = _examination(**asked)
        if parent is not None:
            Bundle.open(parent)
        request = PackRequest(
            path=found.path,
            sample=sample,
            target=target,
            tag=tag,
            tolerance=Tolerance(rtol, atol, max_label_flips),
            float64_inputs=float64_inputs,
            parent=parent,
            about=_text(about, "--about"),
            licence=_text(licence, "--licence"),
            lineage=dict(found.lineage) | _pairs(meta),
            examination=examination,
            trust=trust,
            trusted_types=trusted_types,
        )
        bundle = pack_isolated(request, timeout_s=timeout, progress=terminal.progress)
    bundle = bundle if signer is None else _attested(bundle, signer)
    if not dry_run:
        bundle = replace(bundle, path=bundle.write(path, force=force))
    _tell(terminal, bundle, instead_of=path if dry_run else None)


def _free_path(output: Path | None, tag: str, *, force: bool) -> Path:
    name, version = parse_tag(tag)
    path = output or Path(f"{name}-{version}.tar")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists", hint="choose another -o, or replace it with --force")
    return path


def _attested(bundle: Bundle, signer: Signer) -> Bundle:
    from shoal_converter.signing.oms import attested  # noqa: PLC0415 - cryptography, for this option only

    return attested(bundle, signer)


def _tell(terminal: Terminal, bundle: Bundle, *, instead_of: Path | None) -> None:
    """Tell what was made; `instead_of` is where a dry run did not write it."""
    if terminal.json_wanted:
        terminal.json(result(bundle) | ({} if instead_of is None else {"dry_run": True}))
        return
    oms = ", beside it an OMS signature" if OMS in bundle.statements else ""
    terminal.facts([*bundle.summary(), ("signed", f"not yet: a push signs it{oms}")])
    if instead_of is not None:
        terminal.facts([("dry run", f"nothing was written; it would be {instead_of}")])


@dataclass(frozen=True)
class _Source:
    """A model's file with what is known of it: an input example, and where it comes from."""

    path: Path
    example: Path | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def _found(source: Path, terminal: Terminal) -> Iterator[_Source]:
    """Yield the model's own file as long as it is needed: at an address of MLflow, in a folder of it, or as given."""
    if is_address(source):
        terminal.progress(f"fetching {source} from MLflow")
        with fetched(source) as answer, _found(answer.folder, terminal) as found:
            yield replace(found, lineage=dict(found.lineage) | answer.lineage)
    elif is_mlflow(source):
        logged = read_mlflow(source)
        yield _Source(logged.path, logged.example, logged.lineage)
    else:
        yield _Source(source)


def variants_of(bundle: Bundle) -> list[dict[str, object]]:
    """Return the forms of the model, the one that a device prefers first, with what is known of each."""
    known = {entry["variant"]: entry for entry in (bundle.measured or {}).get("variants", [])}
    return [
        {
            "path": form.path,
            "precision": form.precision,
            "platform": form.platform,
            "bytes": len(bundle.files[form.path]),
            "evidence": next((entry for name, entry in known.items() if f".{name}." in form.path), None),
        }
        for form in bundle.info.variants
    ]


def figures(bundle: Bundle) -> dict[str, object]:
    """Return the model's own figures, and which data each is of."""
    reference = bundle.reference
    if reference is None:
        return {}
    return {
        "metrics": reference.metrics,
        "segments": msgspec.to_builtins(reference.segments),
        "sources": reference.sources,
    }


def result(bundle: Bundle) -> dict[str, object]:
    """Return what `--json` prints."""
    return {
        "ref": str(bundle.ref),
        "digest": bundle.digest,
        "path": None if bundle.path is None else str(bundle.path),
        "parity": None if bundle.parity is None else dict(bundle.parity),
        "refused": [],
        "variants": variants_of(bundle),
        "measured": bundle.measured,
        **figures(bundle),
    }


def _examination(
    *,
    validation: Path | None,
    segment_by: tuple[str, ...],
    variants: tuple[str, ...],
    latency_budget: float | None,
    memory_budget: int | None,
    contract: Path | None,
    no_reference: bool = False,
) -> Examination:
    """Return what the options ask of the model beside parity; budgets in milliseconds and MiB."""
    if validation is not None:
        check_sample_file(validation, flag="--validation")
    groupings = [names for text in segment_by if (names := [name.strip() for name in text.split(",") if name.strip()])]
    budget: dict[str, float] = {}
    if latency_budget is not None:
        budget["latency_budget_ms"] = latency_budget
    if memory_budget is not None:
        budget["memory_budget_bytes"] = memory_budget << 20
    return Examination(validation, groupings, variants, budget, _contract(contract), not no_reference)


def _contract(path: Path | None) -> Any:
    """Return a contract as it is written, after a look at its form; the features are known later."""
    if path is None or str(path) == "auto":
        return None if path is None else "auto"
    import yaml  # noqa: PLC0415 - 20 ms, for this option only

    text = _text(path, "--contract")
    try:
        document = yaml.safe_load(text)
        twice = repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise CallerError(f"--contract {path} is no YAML: {error}") from error
    if twice:
        raise CallerError(f"--contract {path}: stands twice in a mapping: {', '.join(twice[:5])}")
    parse_contract(document)
    return document


def _text(path: Path | None, flag: str) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError(f"{flag} {path} can't be read: {error}") from error


def _pairs(meta: tuple[str, ...]) -> dict[str, str]:
    wrong = [text for text in meta if "=" not in text]
    if wrong:
        raise CallerError(f"--meta {wrong[0]!r} is no KEY=VALUE", hint="--meta run_id=42")
    return {key: value for key, _, value in (text.partition("=") for text in meta)}
