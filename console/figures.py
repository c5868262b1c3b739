"""Numbers as people read them in a table: short, and of one width where they stand in a column."""

import math
from collections.abc import Sequence
from typing import Final

_SPARKS: Final = "▁▂▃▄▅▆▇█"
_LARGE: Final = 100_000
_UNITS: Final = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_SPANS: Final = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))


def count(number: float) -> str:
    """A whole number: `1,204`, and from 100,000 on `120k`, `1.2M`."""
    for unit, size in _UNITS if number >= _LARGE else ():
        if number >= size:
            return f"{number / size:.1f}{unit}" if number < 10 * size else f"{number / size:.0f}{unit}"
    return f"{number:,.0f}"


def rate(per_s: float) -> str:
    """How often a second: digits after the point as long as they tell something."""
    if per_s == 0:
        return "0"
    return f"{per_s:.2f}" if per_s < 1 else f"{per_s:.1f}" if per_s < 100 else count(per_s)


def amount(number: float) -> str:
    """What is used of a limit, or left: whole where it is whole or large."""
    return count(number) if number == int(number) or number >= 100 else f"{number:.2f}".rstrip("0")


def usd(number: float) -> str:
    """Money, in four digits after the point where it is less than a dollar."""
    if number == 0:
        return "$0"
    return f"${number:,.2f}" if number >= 1 else f"${number:.4f}" if number >= 0.0001 else "<$0.0001"


def percent(part: float, whole: float) -> str:
    """A share of something; `-` of nothing."""
    return f"{100 * part / whole:.0f}%" if whole > 0 else "-"


def span(seconds: float) -> str:
    """A duration in its two largest units: `8s`, `3m20s`, `4h05m`, `2d03h`."""
    whole = max(0, math.ceil(seconds))
    for unit, size, lesser, part in _SPANS:
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{lesser}"
    return f"{whole}s"


def bar(share: float, width: int) -> tuple[str, str]:
    """A bar of `width` columns, by halves of a column: what is filled, and the rest. Any use shows."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    halves = max(halves, 1) if share > 0 else halves
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return filled, "─" * (width - len(filled))


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as columns, the highest as a full one; the lowest is kept for zero."""
    shown = values[-width:] if width > 0 else ()
    peak = max(shown, default=0.0)
    if peak <= 0:
        return _SPARKS[0] * len(shown)
    top = len(_SPARKS) - 1
    return "".join(_SPARKS[math.ceil(max(0.0, value) / peak * top)] for value in shown)
