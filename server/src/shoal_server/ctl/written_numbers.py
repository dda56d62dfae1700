"""Numbers as people and spreadsheets write them: 1,079.56, 1.079,56, 1'079.56, 21.5 °C, $ 3.20. Pure.

A column is read in one way as a whole or stays as it is: at least 95 % of what it holds must be written alike, with one
and the same unit. What can be read in two ways (1,079) is taken to have thousands set off; where commas don't separate
values, decimal commas were read before this.
"""

from __future__ import annotations

import re
from itertools import islice

from shoal_server.ctl.sample_columns import MISSING, number

_UNITS = frozenset(
    word
    for line in (
        "% ‰ ppm ppb °C °F ℃ ℉ C F K g kg mg t lb lbs oz m cm mm µm μm km ft in mi l L ml h min s ms µs μs ns",
        "V mV A mA W kW MW Wh kWh MWh VA Hz kHz MHz GHz Pa hPa kPa MPa bar mbar psi dB dBm lx N Nm J kJ m/s km/h mph",
        "rpm m3 m³ m2 m² l/min m3/h m³/h µg/m3 μg/m3 µg/m³ mg/l $ € £ ¥ CHF EUR USD GBP",
    )
    for word in line.split()
)
_PARTED = re.compile(
    r"([$€£¥]?)\s*([+-]?\d[\d.,'’ \u00a0\u202f]*?(?:e[+-]?\d+)?)(\s*)([^\d\s.,'’+-]\S*)?", re.IGNORECASE
)
_PLAIN = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_STYLES = (
    (re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?"), ",", "."),
    (re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?"), ".", ","),
    (re.compile(r"[+-]?(\d{1,3}(['’ \u00a0\u202f]\d{3})+|\d+)(\.\d+)?"), "'’ \u00a0\u202f", "."),
    (re.compile(r"[+-]?(\d{1,3}(['’ \u00a0\u202f]\d{3})+|\d+)(,\d+)?"), "'’ \u00a0\u202f", ","),
)
_ALIKE = 0.95
_LOOKED_AT = 200


def plainly(texts: list[str]) -> tuple[list[str], str]:
    """Write a column's numbers plainly.

    Args:
        texts: Of the column; see `MISSING` for what counts as missing.

    Returns:
        The texts with numbers as ``float`` reads them, and their unit; unchanged where they aren't numbers.

    >>> plainly(["1,079.56", "92.27", "n/a"]), plainly(["1.079,56", "92,27"])
    ((['1079.56', '92.27', 'n/a'], ''), (['1079.56', '92.27'], ''))
    >>> plainly(["21.5 °C", "19 °C"]), plainly(["5 kg", "300 g"])
    ((['21.5', '19'], '°C'), (['5 kg', '300 g'], ''))
    >>> plainly(["A1", "A2"]), plainly(["1.2.3", "1.2.4"])
    ((['A1', 'A2'], ''), (['1.2.3', '1.2.4'], ''))
    """
    some = list(islice((text for text in texts if text.strip().lower() not in MISSING), _LOOKED_AT))
    if not some or sum(_parted(text) is not None for text in some) < _ALIKE * len(some):
        return texts, ""
    parts = {text: _parted(text) for text in set(texts)}
    present = [text for text in texts if text.strip().lower() not in MISSING]
    units = {found[1] for text, found in parts.items() if found is not None}
    if len(units) != 1:
        return texts, ""
    for style, thousands, point in _STYLES:
        written = {text: _as(found[0], style, thousands, point) for text, found in parts.items() if found is not None}
        if sum(written.get(text) is not None for text in present) >= _ALIKE * len(present):
            return [written.get(text) or text for text in texts], units.pop()
    return texts, ""


def _parted(text: str) -> tuple[str, str] | None:
    """Return a number as it is written, and its unit."""
    found = _PARTED.fullmatch(text.strip())
    if found is None:
        return (text.strip(), "") if number(text) is not None and text.strip().lower() not in MISSING else None
    before, figures, after = found[1], found[2].rstrip(), found[4] or ""
    if len(after) == 1 and after.isascii() and after.isalpha() and not found[3]:
        return None  # 12A is a seat or a house
    unit = before or after
    return (figures, unit) if (not before or not after) and (not unit or unit in _UNITS) else None


def _as(figures: str, style: re.Pattern[str], thousands: str, point: str) -> str | None:
    if style.fullmatch(figures):
        return "".join(character for character in figures if character not in thousands).replace(point, ".")
    return figures if point == "." and _PLAIN.fullmatch(figures) else None
