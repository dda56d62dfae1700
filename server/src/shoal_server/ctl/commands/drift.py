"""`shoalctl drift`: what changed in inputs and predictions, where, since when, and the suspected cause."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_protocol.errors import CallerError
from shoal_server.ctl.errors import ExitCode, FileError
from shoal_server.ctl.names import BundleNames
from shoal_server.ctl.output import ago, print_table
from shoal_server.ctl.program import Call, connected

if TYPE_CHECKING:
    from shoal_server.statistics.samples import Comparison

_FILE = click.Path(path_type=Path)
_SCOPES = click.Choice(["fleet", "cohort", "device"])


@click.group()
def drift() -> None:
    """See what changed in inputs and predictions."""


@drift.command()
@click.argument("slot", required=False)
@click.option("--scope", type=_SCOPES, help="Only this level.")
@click.option("--all", "everything", is_flag=True, help="Also what does not drift.")
@connected
def show(call: Call, *, slot: str | None, scope: str | None, everything: bool) -> None:
    """Show what drifts: feature, where, since when, how much and the suspected cause."""
    verdict = None if everything else "drift"
    found = list(call.client.items("/api/v1/drift", slot=slot, scope=scope, verdict=verdict))
    call.show({"items": found}, lambda: _print(call, found, slot=slot))


@drift.command()
@click.argument("reference", type=_FILE)
@click.argument("current", type=_FILE)
@click.option(
    "--alpha", default=0.01, show_default=True, help="Probability of a false alarm over all features together."
)
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--time-ordered", is_flag=True, help="Rows follow in time: like neighbours count as fewer rows.")
@click.option("--html", "page", type=_FILE, metavar="FILE", help="Also write a report with plots.")
@connected
def test(
    call: Call,
    *,
    reference: Path,
    current: Path,
    alpha: float,
    columns: str | None,
    time_ordered: bool,
    page: Path | None,
) -> ExitCode:
    """Compare two files of rows (CSV, npz, Parquet) column by column; needs no server.

    Exit codes: 0 no drift, 3 drift, 4 too few rows to say, 2 a file can't be compared.
    """
    from shoal_server.ctl import drift_text, sample_files  # noqa: PLC0415 - numpy, which other commands needn't load
    from shoal_server.statistics.samples import compare, dependence_notes  # noqa: PLC0415 - scipy likewise

    if not 0 < alpha < 1:
        raise CallerError(f"expected --alpha between 0 and 1, such as 0.01, got {alpha:g}")
    names = [name.strip() for name in (columns or "").split(",") if name.strip()]
    pair = sample_files.read_pair(reference, current, columns=names)
    rows = (len(next(iter(pair.reference.values()))), len(next(iter(pair.current.values()))))
    if not time_ordered:
        pair.notes.extend(dependence_notes(pair.reference, pair.current))
    found = compare(pair.reference, pair.current, alpha=alpha, time_ordered=time_ordered)
    if page is not None:
        from shoal_server.ctl.drift_report import html_report  # noqa: PLC0415 - beside its only use

        _write(page, html_report(found, pair, files=(reference.name, current.name), rows=rows, alpha=alpha))
    call.show(
        drift_text.as_json(found, rows=rows, alpha=alpha, notes=pair.notes),
        lambda: _print_test(found, rows=rows, notes=pair.notes, page=page),
    )
    codes = {"none": ExitCode.OK, "drift": ExitCode.DRIFT, "too_few": ExitCode.TOO_FEW}
    return codes[str(found.verdict)]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path} can't be written: {error}") from error


def _print_test(found: Comparison, *, rows: tuple[int, int], notes: list[str], page: Path | None) -> None:
    from shoal_server.ctl.drift_text import answer, effect_text, p_text  # noqa: PLC0415 - imports numpy

    click.echo(f"{answer(found)} ({rows[1]} rows against {rows[0]}).")
    table = [
        (
            one.name,
            one.verdict,
            effect_text(one),
            p_text(one.p),
            f"{one.psi:.3f} ({one.psi_threshold:.3f})",
            f"{one.js:.4f} ({one.js_threshold:.4f})",
            one.cause,
        )
        for one in found.features
    ]
    headers = ("feature", "verdict", "view and effect", "p", "psi (by chance)", "js (by chance)", "suspected cause")
    print_table(headers, table, empty="")
    for note in notes:
        click.echo(f"note: {note}")
    if page is not None:
        click.echo(f"Report: {page}")


def _print(call: Call, found: list[dict[str, Any]], *, slot: str | None) -> None:
    if not found:
        click.echo(quiet(list(call.client.items("/api/v1/drift", slot=slot, scope="fleet"))))
        return
    names = BundleNames(call.client)
    rows = [
        (
            one["feature"],
            where(one),
            one["verdict"],
            one["view"],
            one["effect"],
            ago(one["since"]),
            f"{one['slot']} ({names.of(one['digest'])})",
            one["cause"],
        )
        for one in sorted(found, key=lambda one: (one["slot"], one["verdict"] != "drift", -abs(one["effect"])))
    ]
    headers = ("feature", "where", "verdict", "view", "effect", "since", "slot", "suspected cause")
    print_table(headers, rows, empty="")


def where(one: dict[str, Any]) -> str:
    """Return the scope in words.

    >>> where({"scope": "cohort", "name": "site=bern"}), where({"scope": "fleet", "name": "fleet"})
    ('site=bern', 'the fleet')
    """
    return "the fleet" if one["scope"] == "fleet" else str(one["name"])


def quiet(fleet: list[dict[str, Any]]) -> str:
    """Say why nothing drifts, from the fleet's own streams.

    >>> quiet([])
    'Nothing is watched yet: no device has sent windows of a bundle with a reference profile.'
    """
    if not fleet:
        return "Nothing is watched yet: no device has sent windows of a bundle with a reference profile."
    learning = [one for one in fleet if one["verdict"] == "learning"]
    if learning:
        return f"No drift; learning the baseline, window {learning[0]['windows']} of {learning[0]['baseline_windows']}."
    return "No drift. See every stream: shoalctl drift show --all"
