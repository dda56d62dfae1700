"""The model card: the bundle's README.md, from facts that are inside the bundle.

Follows the sections of Mitchell et al., Model Cards for Model Reporting, 2019, as far as facts are known; it holds no
time, host or user, since it is covered by the digest.
"""

from __future__ import annotations

from shoal_converter.bundle import segment_lines
from shoal_protocol.bundle.schema import BundleInfo, FieldSpec, ModelSchema, Nearness
from shoal_protocol.profile.reference import Reference

_MOST_FIELDS = 60
_SAID = {"sample": "sample (training data may be among it)", "validation": "validation data"}


def model_card(
    info: BundleInfo, schema: ModelSchema, reference: Reference, *, about: str = "", kept: bool = True
) -> str:
    """Return Markdown.

    Args:
        info: The bundle's own document.
        schema: Its inputs and outputs.
        reference: Its reference.
        about: The author's words: intended use, limits.
        kept: Whether the bundle holds the reference; else it is of the proof's rows only.
    """
    lines = [
        f"# {info.name} {info.version}",
        "",
        about.strip() or f"A {info.task} model, trained with {info.framework}.",
        "",
        "## Inputs",
        "",
        "| feature | type | tensor | seen | missing | importance |",
        "|---|---|---|---|---|---|",
        *[_field(field, reference) for field in schema.inputs[:_MOST_FIELDS]],
    ]
    if len(schema.inputs) > _MOST_FIELDS:
        lines.append(f"| and {len(schema.inputs) - _MOST_FIELDS} more, see schema.json | | | | | |")
    lines += ["", "## Outputs", "", "| output | type | shape | classes |", "|---|---|---|---|"]
    for output in schema.outputs:
        shape = " × ".join("N" if size is None else str(size) for size in output.shape)
        classes = ", ".join(_cell(text) for text in output.classes or ())
        lines.append(f"| {output.name} | {output.dtype} | {shape} | {classes} |")
    lines += ["", "## Figures", ""]
    of = {figure: _SAID[data] for figure, data in reference.sources.items()}
    lines.append(
        f"{'Reference' if kept else 'No reference; proven on'}: {reference.profile.n} rows of the "
        f"{of.get('profile', _SAID['sample'])}. Importance is the loss of "
        f"{reference.metric} on the {of.get('importance', _SAID['sample'])}, the mean of three shuffles."
    )
    for name, value in sorted(reference.metrics.items()):
        lines.append(f"- {name} on the {of.get('metrics', _SAID['sample'])}: {value:.6g}")
    if reference.segments:
        lines += ["", f"By segment, with 95 % intervals, on the {of.get('segments', _SAID['sample'])}:", ""]
        lines += ["| segment | figures and rows |", "|---|---|"]
        lines += [f"| {_cell(part)} | {figures} |" for part, figures in segment_lines(reference)]
    return "\n".join([*lines, *_variants(info)]) + "\n"


def _variants(info: BundleInfo) -> list[str]:
    runtime = info.runtime
    lines = [
        "",
        "## Forms",
        "",
        "| file | precision | runs on | as near to the canonical model as |",
        "|---|---|---|---|",
    ]
    for form in info.variants:
        near = "itself" if form.golden is None else _nearness(form.golden)
        lines.append(f"| {form.path} | {form.precision} | {form.platform or 'any platform'} | {near} |")
    lines += ["", "A device takes the first one that runs on it."]
    if runtime.latency_budget_ms is not None:
        lines.append(f"- declared latency of one row (p95): {runtime.latency_budget_ms:g} ms at most")
    if runtime.memory_budget_bytes is not None:
        lines.append(f"- declared memory of the model: {runtime.memory_budget_bytes >> 20} MiB at most")
    return lines


def _nearness(near: Nearness) -> str:
    numbers = ", ".join(f"{name} within {atol:g}" for name, atol in sorted(near.atol.items()))
    return f"{numbers}; {near.label_flips} labels of the golden rows may differ"


def _field(field: FieldSpec, reference: Reference) -> str:
    seen = ""
    if field.categories is not None:
        seen = ", ".join(_cell(text) for text in field.categories[:6]) + (" …" if len(field.categories) > 6 else "")
    elif field.low is not None and field.high is not None:
        seen = f"{field.low:.6g} to {field.high:.6g}"
    importance = reference.importance.get(field.name)
    shown = "" if importance is None else f"{importance:.4g}"
    return f"| {_cell(field.name)} | {field.dtype} | {_cell(field.tensor)} | {seen} | {field.missing} | {shown} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:60]
