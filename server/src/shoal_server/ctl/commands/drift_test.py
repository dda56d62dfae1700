"""`shoalctl drift test`: two files of rows compared by the statistics of a fleet; needs no server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_protocol.errors import CallerError
from shoal_server.ctl.arguments import parse_share, written
from shoal_server.ctl.errors import ExitCode
from shoal_server.ctl.output import print_table
from shoal_server.ctl.program import Call, connected

if TYPE_CHECKING:
    from shoal_server.ctl.sample_files import Pair
    from shoal_server.statistics.joint_samples import JointComparison
    from shoal_server.statistics.samples import Comparison

_FILE = click.Path(path_type=Path)
_CODES = {"none": ExitCode.OK, "drift": ExitCode.DRIFT, "too_few": ExitCode.TOO_FEW}


@click.command()
@click.argument("reference", type=_FILE)
@click.argument("current", type=_FILE)
@click.option(
    "--alpha",
    "--false-alarm-rate",
    "alpha",
    default="0.01",
    show_default=True,
    help="Probability of a false alarm over all features together, such as 0.01, '1%' or '1 in 100'.",
)
@click.option("--features", "--columns", "features", metavar="A,B", help="Only these columns.")
@click.option("--ignore", metavar="A,B", help="All columns but these.")
@click.option("--time-ordered", is_flag=True, help="Rows follow in time: like neighbours count as fewer rows.")
@click.option("--given", metavar="COLUMN", help="Also compare at an equal mix of this column, such as the class.")
@click.option("--html", "--report", "page", type=_FILE, metavar="FILE", help="Also write a report with plots.")
@connected
def test(
    call: Call,
    *,
    reference: Path,
    current: Path,
    alpha: str,
    features: str | None,
    ignore: str | None,
    time_ordered: bool,
    given: str | None,
    page: Path | None,
) -> ExitCode:
    """Compare two files of rows (CSV, JSON, npz, Parquet, svmlight) column by column; needs no server.

    Exit codes: 0 no drift, 3 drift, 4 too few rows to say, 2 a file can't be compared.

    Example: shoalctl drift test training.csv november.csv --html report.html
    """
    from shoal_server.ctl import sample_files  # noqa: PLC0415 - numpy, which other commands needn't load
    from shoal_server.statistics import answers  # noqa: PLC0415 - scipy likewise
    from shoal_server.statistics.joint_samples import compare_jointly, joint_notes  # noqa: PLC0415 - scipy likewise
    from shoal_server.statistics.samples import dependence_notes  # noqa: PLC0415 - scipy likewise

    share = parse_share(alpha)
    if not 0 < share < 1:
        raise CallerError(f"expected --alpha between 0 and 1, such as 0.01, got {alpha}")
    pair = sample_files.read_pair(reference, current, columns=_wanted(features, given), ignore=_names(ignore))
    rows = (len(next(iter(pair.reference.values()))), len(next(iter(pair.current.values()))))
    if not time_ordered:
        pair.notes.extend(dependence_notes(pair.reference, pair.current))
    if given is not None and given not in pair.reference:
        raise CallerError(f"expected --given one of the compared columns, got {given!r}", hint=_listed(pair.reference))
    both = compare_jointly(pair.reference, pair.current, alpha=share, time_ordered=time_ordered, given=given or "")
    found = both.found
    pair.notes.extend(joint_notes(both.looked_at))
    if page is not None:
        _write_page(page, both, pair, files=(reference.name, current.name), rows=rows, alpha=share)
    call.show(
        answers.as_json(found, rows=rows, alpha=share, notes=pair.notes),
        lambda: _print(found, rows=rows, notes=pair.notes, page=page),
    )
    return _CODES[str(found.verdict)]


def _write_page(
    page: Path, both: JointComparison, pair: Pair, *, files: tuple[str, str], rows: tuple[int, int], alpha: float
) -> None:
    from shoal_server.report.samples import Samples, samples_report  # noqa: PLC0415 - beside its only use

    samples = Samples(reference=both.reference, current=both.current, files=files, rows=rows, notes=pair.notes)
    written(page, samples_report(both.found, samples, alpha=alpha))


def _wanted(features: str | None, given: str | None) -> list[str]:
    """Return the columns to read; that of the mix is needed whether it is named or not."""
    wanted = _names(features)
    return [*wanted, given] if wanted and given is not None and given not in wanted else wanted


def _listed(columns: Iterable[str]) -> str:
    first = list(columns)
    return f"they are {', '.join(first[:12])}{' ...' if len(first) > 12 else ''}"


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _print(found: Comparison, *, rows: tuple[int, int], notes: list[str], page: Path | None) -> None:
    from shoal_server.statistics.answers import answer, p_text  # noqa: PLC0415 - imports numpy
    from shoal_server.statistics.words import effect_text  # noqa: PLC0415 - likewise

    click.echo(f"{answer(found)} ({rows[1]:,} rows against {rows[0]:,}).")
    table: list[tuple[Any, ...]] = [
        (
            one.name,
            one.verdict,
            effect_text(one.view, one.effect, one.effect_unit),
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
