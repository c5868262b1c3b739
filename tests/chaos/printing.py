"""What a run prints: lines while it goes on, one that is written over on a terminal, and the account."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.account import Figure

_EACH_S = 5.0
_EACH_ON_TERMINAL_S = 0.3
_MOST_WRONGS = 10


class Progress:
    """A line about how far the run is, now and then."""

    def __init__(self, *, shown: bool = True) -> None:
        self._began = time.monotonic()
        self._shown = shown
        self._on_terminal = sys.stdout.isatty()
        self._next = 0.0

    def tell(self, text: str) -> None:
        """Says where it stands, unless that was said just now."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + (_EACH_ON_TERMINAL_S if self._on_terminal else _EACH_S)
        line = f"{now - self._began:6.0f} s  {text}"
        if self._on_terminal:
            sys.stdout.write(f"\r\033[K{line}")
            sys.stdout.flush()
        else:
            say(line)

    def note(self, text: str) -> None:
        """Says something that stays on the screen."""
        if self._shown:
            if self._on_terminal:
                sys.stdout.write("\r\033[K")
            say(f"{time.monotonic() - self._began:6.0f} s  {text}")


def table(figures: Sequence[Figure]) -> str:
    """The account, a line for each figure, and what is wrong with it below."""
    names, found = (max(len(getattr(f, field)) for f in figures) for field in ("name", "found"))
    lines = []
    for figure in figures:
        mark = "WRONG" if figure.wrongs else "ok"
        lines.append(f"{figure.name:{names}}  {figure.found:{found}}  {mark:5}  must be: {figure.must}")
        lines += [f"    {wrong}" for wrong in figure.wrongs[:_MOST_WRONGS]]
        if len(figure.wrongs) > _MOST_WRONGS:
            lines.append(f"    and {len(figure.wrongs) - _MOST_WRONGS} more")
    return "\n".join(lines)


def write_json(path: Path, figures: Sequence[Figure], **facts: object) -> None:
    """The same for programs."""
    right = not any(figure.wrongs for figure in figures)
    rows = [asdict(figure) for figure in figures]
    path.write_text(json.dumps({"right": right, **facts, "figures": rows}, indent=2) + "\n", "utf-8")


def say(text: str) -> None:
    """A line of output."""
    print(text, flush=True)  # noqa: T201 - its output
