"""`shoalctl drift export` and `replay`: recorded windows in a file, and through the rules once more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal_protocol.errors import CallerError
from shoal_server.ctl.arguments import parse_instant, parse_seconds
from shoal_server.ctl.commands.drift_report import only_slot
from shoal_server.ctl.output import print_table
from shoal_server.ctl.program import Call, connected

if TYPE_CHECKING:
    from shoal_server.analysis.recording import Recording
    from shoal_server.analysis.replay import Difference, Replayed

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("slot", required=False)
@click.option("--model", metavar="REF", help="Only this model or bundle: quality, quality:1.4.0, quality@champion.")
@click.option("--since", metavar="SPAN", default="7d", show_default=True, help="So far back, or from this time on.")
@click.option("--until", metavar="TIME", help="Before this time, such as 2026-12-01T00:00:00Z [now].")
@click.option("--output", type=_FILE, required=True, metavar="FILE", help="A .jsonl or .npz file.")
@connected
def export(call: Call, *, slot: str | None, model: str | None, since: str, until: str | None, output: Path) -> None:
    """Write a slot's recorded windows to a file: counts and their meaning, for audits, notebooks and replay.

    Example: shoalctl drift export quality --since 30d --output windows.npz
    """
    from shoal_server.analysis.files import write_windows  # noqa: PLC0415 - numpy, which other commands needn't load

    if output.suffix.lower() not in {".jsonl", ".npz"}:
        raise CallerError(f"expected an --output that ends in .jsonl or .npz, got {output.name}")
    recording = _from_server(call, slot or only_slot(call), model=model, since=since, until=until)
    write_windows(recording, output)
    answer = {
        "path": str(output),
        "slot": recording.slot,
        "windows": len(recording),
        "damaged": recording.damaged,
        "bundles": {windows.name: len(windows) for windows in recording.by_digest.values()},
        "size_bytes": output.stat().st_size,
    }
    told = f"{len(recording)} windows of {len(recording.by_digest)} bundles in slot {recording.slot}: {output}"
    call.show(answer, lambda: click.echo(told))


@click.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--slot", help="Without FILE: whose windows the server shall give.")
@click.option("--model", metavar="REF", help="Only this model or bundle.")
@click.option("--from", "since", metavar="TIME", default="7d", help="From this time on, or so far back [7d].")
@click.option("--to", "until", metavar="TIME", help="Before this time [now].")
@click.option("--false-alarms", metavar="WORDS", help="How often a quiet fleet may be alarmed, such as '1 per year'.")
@click.option("--threshold", type=click.FloatRange(min=2), help="The same as windows between false alarms of a level.")
@click.option("--window", metavar="SPAN", help="Length of a window, such as 15m; no shorter than the recorded ones.")
@click.option("--season", type=click.Choice(["none", "day", "week"]), help="After what time things repeat themselves.")
@click.option("--baseline", type=click.IntRange(min=2), metavar="N", help="Windows of a baseline.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, help="In sd of a window's score [0].")
@connected
def replay(
    call: Call, *, file: Path | None, slot: str | None, model: str | None, since: str, until: str | None, **other: Any
) -> None:
    """Replay recorded windows under other settings: which alerts would have come, beside those that came.

    The rules are those of the server, run here. Baselines are learnt from the first windows of the time.

    Example: shoalctl drift replay windows.npz --false-alarms "1 per year" --window 15m
    """
    from shoal_server.analysis.files import read_windows  # noqa: PLC0415 - numpy, which other commands needn't load
    from shoal_server.analysis.replay import compared  # noqa: PLC0415 - scipy likewise
    from shoal_server.analysis.replay import replay as replayed  # noqa: PLC0415 - likewise

    settings = _settings(**other)
    if file is not None:
        recording = read_windows(file)
    else:
        recording = _from_server(call, slot or only_slot(call), model=model, since=since, until=until)
    if not len(recording):
        raise CallerError(
            f"there are no windows of slot {recording.slot} in this time", hint="look further back: --from 30d"
        )
    results = replayed(recording, settings)
    pairs = compared(recording, results)
    call.show(_json(recording, results, pairs), lambda: _print(recording, results, pairs))


def _settings(
    *,
    false_alarms: str | None,
    threshold: float | None,
    window: str | None,
    season: str | None,
    baseline: int | None,
    tolerance: float,
) -> Any:
    from shoal_server.analysis.replay import Settings, parse_words  # noqa: PLC0415 - scipy

    if false_alarms is not None and threshold is not None:
        raise CallerError("--false-alarms and --threshold say the same thing: give one of them")
    return Settings(
        threshold=threshold,
        window_ms=None if window is None else round(1000 * parse_seconds(window)),
        baseline_windows=baseline,
        tolerance=tolerance,
        **parse_words(false_alarms=false_alarms, season=season),
    )


def _from_server(call: Call, slot: str, *, model: str | None, since: str, until: str | None) -> Recording:
    from shoal_server.analysis.fetch import fetched  # noqa: PLC0415 - numpy

    now = datetime.now(UTC)
    begin = parse_instant(since) if "-" in since else now - timedelta(seconds=parse_seconds(since))
    end = None if until is None else parse_instant(until)
    return fetched(call.client, slot=slot, model=model, since=begin, until=end)


def _json(recording: Recording, results: list[Replayed], pairs: list[Difference]) -> dict[str, Any]:
    return {
        "slot": recording.slot,
        "windows": len(recording),
        "damaged": recording.damaged,
        "bundles": [
            {
                "name": one.name,
                "digest": one.digest,
                "buckets": one.buckets,
                "settings": {
                    "window_s": one.window_ms / 1000,
                    "season": one.rules.season.value,
                    "baseline_windows": one.rules.baseline_windows,
                    "threshold": one.rules.mean_time_to_false_alarm,
                    "tolerance": one.rules.tolerance,
                    "false_alarms": one.false_alarms,
                },
                "alerts": [
                    {
                        "key": told.key,
                        "title": told.title,
                        "body": told.body,
                        "raised_at": _instant(told.raised_at),
                        "resolved_at": _instant(told.resolved_at),
                    }
                    for told in one.told
                ],
            }
            for one in results
        ],
        "compared": [
            {
                "key": one.key,
                "title": one.title,
                "came_at": _instant(one.recorded_at),
                "would_come_at": _instant(one.replayed_at),
            }
            for one in pairs
        ],
    }


def _instant(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _print(recording: Recording, results: list[Replayed], pairs: list[Difference]) -> None:
    for one in results:
        whole = one.rules.baseline_windows
        learning = f", of which {whole} are the baseline" if one.buckets > whole else f": a baseline takes {whole}"
        click.echo(
            f"{one.name} in slot {recording.slot}: {one.buckets} windows of {one.window_ms / 1000:g} s{learning}; "
            f"{one.false_alarms}."
        )
    rows = [(_instant(one.recorded_at), _instant(one.replayed_at), one.title) for one in pairs]
    print_table(("came", "would come", "alert"), rows, empty="No alert came, and none would have come.")
    if recording.damaged:
        click.echo(f"note: {recording.damaged} windows could not be read and were left out.")
