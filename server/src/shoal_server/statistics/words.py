"""Sizes and shares in words, the same wherever a person reads of drift: CLI, API, pages, alerts and reports. Pure."""

from __future__ import annotations

from shoal_server.statistics.views import View

_SIGNED = frozenset({View.MISSING, View.RANGE})


def unit_of(view: View) -> str:
    """Return the unit in which a fleet's change is measured: ``sd``, ``share`` or ``contrast``."""
    if view is View.LOCATION:
        return "sd"
    return "share" if view in _SIGNED else "contrast"


def effect_text(view: View, effect: float, unit: str = "") -> str:
    """Write the view and the effect in its unit.

    Args:
        view: What has changed.
        effect: How much.
        unit: ``sd`` of the reference, ``share`` of rows, or ``contrast``; empty: the view's own.

    >>> effect_text(View.LOCATION, 0.5), effect_text(View.MISSING, 0.031), effect_text(View.SHAPE, 1.2)
    ('location +0.50 sd', 'missing +3.1 % of rows', 'shape 1.20')
    """
    unit = unit or unit_of(view)
    return f"{view} {size_text(view, effect, unit)}{' of rows' if unit == 'share' else ''}"


def size_text(view: View, effect: float, unit: str = "") -> str:
    """Write an effect in its unit, without the view.

    >>> size_text(View.LOCATION, -0.5), size_text(View.RANGE, 0.2), size_text(View.CELLS, 0.2, "share")
    ('-0.50 sd', '+20 %', '20 %')
    """
    unit = unit or unit_of(view)
    if unit == "share":
        sign = "-" if effect < 0 else "+" if view in _SIGNED else ""
        return sign + percent(abs(effect))
    return f"{effect:+.2f} sd" if unit == "sd" else f"{effect:.2f}"


def percent(share: float) -> str:
    """Write a share.

    >>> percent(0.031), percent(0.125), percent(1.0), percent(0.0)
    ('3.1 %', '12 %', '100 %', '0 %')
    """
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"
