"""`shoalctl quality`: how right the models are, by labels that came back and by estimate."""

from __future__ import annotations

from typing import Any

import click

from shoal_server.ctl.output import NOTHING, percent, print_facts, print_table
from shoal_server.ctl.program import Call, connected

_ESTIMATED = {"precision": "precision", "recall": "recall", "specificity": "specificity", "f1": "F1"}
_WIDEST = 12
"""Classes of the widest confusion matrix that is printed."""


@click.group()
def quality() -> None:
    """See how right the models are, with true labels and without."""


@quality.command()
@click.argument("slot")
@click.option("--model", metavar="REF", help="Only this bundle, such as quality:1.4.0 or quality@champion.")
@click.option("--cohort", metavar="QUERY", help="Only these devices, such as 'site = bern'.")
@click.option("--segment-by", metavar="LABEL", help="Also by the values of a label or fact, such as site.")
@click.option("--hours", type=click.IntRange(1, 2208), default=168, show_default=True, help="So far back.")
@connected
def show(call: Call, *, slot: str, model: str | None, cohort: str | None, segment_by: str | None, hours: int) -> None:
    """Show accuracy by true labels and by estimate, confusion, calibration, and the mix of classes.

    Example: shoalctl quality show quality --segment-by site
    """
    asked = {"slot": slot, "model": model, "cohort": cohort, "segment_by": segment_by, "hours": hours}
    found = call.client.get("/api/v1/quality", **{name: value for name, value in asked.items() if value is not None})
    call.show(found, lambda: _print(found["items"], slot=slot))


@quality.command()
@click.argument("slot")
@click.argument("a")
@click.argument("b")
@click.option("--cohort", metavar="QUERY", help="Only these devices.")
@click.option("--hours", type=click.IntRange(1, 2208), default=168, show_default=True, help="So far back.")
@connected
def compare(call: Call, *, slot: str, a: str, b: str, cohort: str | None, hours: int) -> None:
    """Compare two bundles of a slot; the answer stays valid however often you look.

    Example: shoalctl quality compare quality quality:1.3.0 quality:1.4.0
    """
    asked = {"slot": slot, "a": a, "b": b, "cohort": cohort, "hours": hours}
    path = "/api/v1/quality/comparison"
    found = call.client.get(path, **{name: value for name, value in asked.items() if value is not None})
    call.show(found, lambda: _print_comparison(found))


def _print(items: list[dict[str, Any]], *, slot: str) -> None:
    if not items:
        click.echo(f"Nothing was predicted in slot {slot} in this time, as far as the server has heard.")
    for at, item in enumerate(items):
        if at:
            click.echo()
        print_facts(quality_facts(item))
        _print_classes(item["truth"])
        if item["truth"]["verdict"] != "value":
            _print_expected(item["estimate"])
        _print_segments(item.get("segments"))


def quality_facts(item: dict[str, Any]) -> dict[str, str]:
    """Return how right a bundle is, in names and figures; also for reports."""
    truth, estimate, shift = item["truth"], item["estimate"], item["label_shift"]
    reference = item["reference"]
    facts = {
        "bundle": f"{item['bundle'] or item['digest'][:19]} in slot {item['slot']}",
        "predictions": str(item["predictions"]),
        "on its reference": percent(reference.get("accuracy"))
        if "rmse" not in reference
        else f"RMSE {reference['rmse']:.4g}",
        "by true labels": _truth(truth),
        "estimated": _figure(estimate["accuracy"]) if estimate["verdict"] == "value" else estimate["reason"],
    }
    for name, words in _ESTIMATED.items():
        if name in estimate:
            facts[f"estimated {words}"] = _figure(estimate[name])
    if "auc" in estimate:
        facts["estimated AUC"] = "{value:.3f} ({low:.3f} to {high:.3f})".format_map(estimate["auc"])
    if "recall" in estimate:
        facts["these are of"] = _averaged(estimate)
    facts["mix of classes"] = _shift(shift)
    if item["drifting"]:
        facts["but"] = f"inputs drift ({', '.join(item['drifting'][:5])}): the estimate may be wrong"
    return facts


def _averaged(estimate: dict[str, Any]) -> str:
    classes: list[str] = estimate["confusion"]["classes"] if "confusion" in estimate else []
    return f"class {classes[1]}" if len(classes) == 2 else "all classes, each against the rest: their mean"


def _truth(truth: dict[str, Any]) -> str:
    if truth["verdict"] != "value":
        return str(truth["reason"])
    if "rmse" in truth:
        figures = [f"{name.upper()} {_number(truth[name])}" for name in ("rmse", "mae", "bias") if truth[name]]
        return f"{', '.join(figures)} from {truth['n']} labels"
    devices = truth["accuracy"]["devices"]
    return f"{_figure(truth['accuracy'])} from {truth['n']} labels, devices: {devices}{_calibration(truth)}"


def _calibration(truth: dict[str, Any]) -> str:
    """Say how far confidences are off, beside what a model shows on so few labels that is exactly calibrated."""
    if "ece" not in truth:
        return ""
    chance = f" ({percent(truth['ece_by_chance'])} by chance alone)" if "ece_by_chance" in truth else ""
    return f", calibration error {percent(truth['ece'])}{chance}"


def _shift(shift: dict[str, Any]) -> str:
    if shift["verdict"] not in {"shifted", "none"}:
        return str(shift["reason"])
    shares = [
        f"{one['name']} {percent(one['before'])} -> {percent(one['now']['value'])}" for one in shift["classes"][:6]
    ]
    return f"{'changed' if shift['verdict'] == 'shifted' else 'no change shown'}: {', '.join(shares)}"


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return NOTHING
    return f"{percent(figure['value'])} ({percent(figure['low'])} to {percent(figure['high'])})"


def _number(figure: dict[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.4g}"
    return f"{figure['value']:.4g} ({figure['low']:.4g} to {figure['high']:.4g})"


def _print_classes(truth: dict[str, Any]) -> None:
    rows = [
        (one["name"], one["n"], _figure(one["precision"]), _figure(one["recall"]), _figure(one["f1"]))
        for one in truth.get("classes", [])
    ]
    if rows:
        click.echo()
        print_table(("class", "labels", "precision", "recall", "F1"), rows, empty="")


def _print_expected(estimate: dict[str, Any]) -> None:
    """Print the expected confusion matrix where there are no labels that would tell the real one."""
    table = estimate.get("confusion")
    if table is None or len(table["classes"]) > _WIDEST:
        return
    click.echo()
    rows = [
        (name, *(f"{count:.0f}" for count in row)) for name, row in zip(table["classes"], table["rows"], strict=True)
    ]
    print_table(("expected: truly", *(f"said {name}" for name in table["classes"])), rows, empty="")


def _print_segments(segments: dict[str, Any] | None) -> None:
    if segments is None:
        return
    click.echo()
    rows = [
        (
            one["name"],
            one["n"],
            one["devices"],
            _number(one["mae"]) if one.get("mae") else _figure(one.get("accuracy")),
            _gap(one),
        )
        for one in segments["groups"]
    ]
    headers = (segments["by"], "labels", "devices", "accuracy or MAE", "against the others")
    print_table(headers, rows, empty=f"No label has come back of any {segments['by']}.")


def _gap(one: dict[str, Any]) -> str:
    gap = one.get("gap")
    if gap is None:
        return NOTHING
    if "mae" in one:
        text = f"{gap['value']:+.4g} ({gap['low']:+.4g} to {gap['high']:+.4g})"
    else:
        text = f"{gap['value'] * 100:+.1f} pp ({gap['low'] * 100:+.1f} to {gap['high'] * 100:+.1f})"
    return text if one["shown"] else f"{text}, may be chance"


def _print_comparison(found: dict[str, Any]) -> None:
    told = _comparisons(found)
    rows = [
        (
            what,
            _answer(one, found),
            f"{NOTHING if one['difference'] is None else format(one['difference'], '+.4f')}",
            NOTHING if one["low"] is None or one["high"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}",
            " / ".join(f"{n:.0f}" for n in one["n"]),
            " / ".join(str(count) for count in one["devices"]),
        )
        for what, one in told
    ]
    headers = ("what", "answer", "b - a", "holds at every look", "rows a / b", "devices a / b")
    print_table(headers, rows, empty="Nothing to compare.")
    for reason in sorted({f"{what}: {one['reason']}" for what, one in told if one["reason"]}):
        click.echo(f"Too few to say of {reason}.")
    if any(not one["reason"] for _, one in told):
        click.echo(
            "Only hours in which both ran are counted. Devices must have been drawn by chance, as stages draw them."
        )


def _comparisons(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return what is told: of the classes those that differ, at most five."""
    names = ("feedback", "estimated_accuracy", "mean_confidence", "mean_score")
    told = [
        (f"{one['metric']} by labels" if name == "feedback" else name.replace("_", " "), one)
        for name in names
        if (one := found.get(name)) is not None
    ]
    apart = [one for one in found.get("answers", []) if one["verdict"] in {"a_higher", "b_higher"}]
    apart.sort(key=lambda one: -abs(one["difference"]))
    return told + [(f"share of answer {one['class']!r}", one) for one in apart[:5]]


def _answer(one: dict[str, Any], found: dict[str, Any]) -> str:
    words = {
        "b_higher": f"{found['b']} is higher",
        "a_higher": f"{found['a']} is higher",
        "none": "no difference shown",
    }
    return words.get(one["verdict"], "too few to say")
