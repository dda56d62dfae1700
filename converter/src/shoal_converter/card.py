"""The model card: the bundle's README.md, from facts that are inside the bundle.

Follows the sections of Mitchell et al., Model Cards for Model Reporting, 2019, as far as facts are known; it holds no
time, host or user, since it is covered by the digest.
"""

from __future__ import annotations

from shoal_protocol.bundle.schema import BundleInfo, FieldSpec, ModelSchema
from shoal_protocol.profile.reference import Reference

_MOST_FIELDS = 60


def model_card(info: BundleInfo, schema: ModelSchema, reference: Reference, *, about: str = "") -> str:
    """Return Markdown.

    Args:
        info: The bundle's own document.
        schema: Its inputs and outputs.
        reference: Its reference.
        about: The author's words: intended use, limits.
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
    lines.append(f"Reference: {reference.profile.n} rows. Importance is the loss of {reference.metric}.")
    for name, value in sorted(reference.metrics.items()):
        lines.append(f"- {name} on these rows (training data may be among them): {value:.6g}")
    return "\n".join(lines) + "\n"


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
