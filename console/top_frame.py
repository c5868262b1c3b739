"""A frame of `optimizer top`: a picture, laid out for a terminal of any size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.table import Table
from rich.text import Text

from console.figures import percent, rate, sparkline, usd
from console.top_panels import PANELS, SORTS, Panel, Sort, agents
from console.top_picture import Picture
from console.top_traffic import SPAN_S
from console.watching import one_line

View = Literal["all", "queues", "limits", "agents", "workers"]
VIEWS: Final[tuple[View, ...]] = ("all", "queues", "limits", "agents", "workers")

_KEYS: Final = ("  Tab next", "  s sort agents", "  q quit")
_LINE_STYLES: Final = {"errors": "red"}
_ROOMY_FROM: Final = 32
"""Lines from which on there is room for a line between panels."""
_TWO_COLUMNS_FROM: Final = 150
_GAP: Final = 3
_ABOVE: Final = 5
"""Lines above the panels: the title, three rates and an empty one."""
_LEFT: Final = ("queues", "limits", "closed")
_OF_SAYINGS: Final = 8
"""At most one line in so many is for what is wrong."""
_RATE_WIDTH: Final = 8
_FACTS_WIDTH: Final = 25


@dataclass(frozen=True)
class Look:
    """What an operator wants to see."""

    view: View = "all"
    sort: Sort = "requests"

    def pressed(self, key: str) -> "Look":
        """The look after a key; one that means nothing changes nothing."""
        if key in {"1", "2", "3", "4", "5"}:
            return replace(self, view=VIEWS[int(key) - 1])
        if key in {"\t", "p"}:
            return replace(self, view=VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])
        if key == "s":
            return replace(self, sort=SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)])
        return self


def frame(picture: Picture, look: Look, width: int, height: int, *, keys: bool = True) -> RenderableType:
    """The picture in at most `height` lines of `width` columns; `keys`: with what can be pressed."""
    sayings = list(_sayings(picture))
    most = max(1, height // _OF_SAYINGS)
    if len(sayings) > most:
        sayings[most - 1 :] = [_saying(f"and {len(sayings) - most + 1} more; see: optimizer health", "dim")]
    top: list[RenderableType] = [_title(picture, width), *sayings, _rates(picture, width), Text()]
    room = height - len(sayings) - _ABOVE - keys
    panels, gap = _panels(picture, look), int(height >= _ROOMY_FROM)
    if look.view == "all" and width >= _TWO_COLUMNS_FROM:
        body = _two_columns(panels, room, gap)
    else:
        body = Group(*_stacked([panel for _, panel in panels], room, gap))
    if not keys:
        return Group(*top, body)
    whole = Layout()
    whole.split_column(Layout(Group(*top, body)), Layout(_keys(look), size=1))
    return whole


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many of `room` lines each gets: one after the other in turn, none more than it wants."""
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for n, want in enumerate(wanted):
            if given[n] < want and room > 0:
                given[n] += 1
                room -= 1
    return given


def _title(picture: Picture, width: int) -> Text:
    living = [seen for seen in picture.workers if not seen.gone]
    providers = {lane.provider for lane in picture.lanes if lane.provider}
    state = ("●", "red" if picture.away or picture.wrong else "green")
    counts = {"worker": len(living), "provider": len(providers), "agent": len(picture.agents)}
    facts = "  ".join(f"{number} {what}{'' if number == 1 else 's'}" for what, number in counts.items())
    left = Text.assemble(("optimizer ", "bold"), state, f" {facts}")
    clock = f"{datetime.fromtimestamp(picture.at, UTC):%H:%M:%S} UTC"
    left.append(clock.rjust(max(len(clock) + 2, width - left.cell_len)), "dim")
    left.no_wrap = True
    return left


def _keys(look: Look) -> Text:
    """What can be pressed, with the view that is shown."""
    views = [(f"{n} {view} ", "reverse" if view == look.view else "dim") for n, view in enumerate(VIEWS, 1)]
    return Text.assemble(*views, ("".join(_KEYS), "dim"), no_wrap=True, overflow="ellipsis")


def _sayings(picture: Picture) -> Iterator[Text]:
    for text in (*picture.away, *picture.wrong):
        yield _saying(text, "red")
    for text in picture.notes:
        yield _saying(text, "yellow")


def _saying(text: str, style: str) -> Text:
    return Text(one_line(text), style, no_wrap=True, overflow="ellipsis")


def _rates(picture: Picture, width: int) -> RenderableType:
    """Three lines: what was asked, what was bought, what failed."""
    of = picture.rates
    asked, bought = of["requests"].mean, of["calls"].mean
    facts = {
        "requests": f"hits {percent(of['hits'].mean, asked)}  joins {percent(of['joins'].mean, asked)}",
        "calls": f"{usd(of['usd'].mean * 60)} a minute",
        "errors": f"failed calls {percent(of['failed'].mean, bought)}",
    }
    line_width = min(SPAN_S, width - 10 - _RATE_WIDTH - 2 - _FACTS_WIDTH)
    table = Table.grid(padding=(0, 1, 0, 0))
    for name, fact in facts.items():
        style = "red" if name == "errors" and of[name].now else "bold"
        table.add_row(
            Text(f"{name:<9}"),
            Text(f"{rate(of[name].now)}/s".rjust(_RATE_WIDTH), style),
            Text(sparkline(of[name].line, line_width).rjust(line_width), _LINE_STYLES.get(name, "cyan")),
            Text(fact, no_wrap=True),
        )
    return table


def _panels(picture: Picture, look: Look) -> list[tuple[str, Panel]]:
    chosen = {"all": tuple(PANELS), "limits": ("limits", "closed")}.get(look.view, (look.view,))
    drawn = {
        name: agents(picture, look.sort) if name == "agents" else PANELS[name](picture) for name in chosen
    }
    return [(name, panel) for name, panel in drawn.items() if panel.rows or name != "closed"]


def _two_columns(panels: Sequence[tuple[str, Panel]], room: int, gap: int) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, _GAP, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    left = [panel for name, panel in panels if name in _LEFT]
    right = [panel for name, panel in panels if name not in _LEFT]
    grid.add_row(Group(*_stacked(left, room, gap)), Group(*_stacked(right, room, gap)))
    return grid


def _stacked(panels: Sequence[Panel], room: int, gap: int) -> Iterator[RenderableType]:
    """As many of the panels as fit, one below the other, so many empty lines between them."""
    fitting = panels[: max(1, (room + gap) // (2 + gap))]
    given = shares([max(1, len(panel.rows)) for panel in fitting], room + gap - (1 + gap) * len(fitting))
    for index, (panel, lines) in enumerate(zip(fitting, given, strict=True)):
        if index and gap:
            yield Text()
        yield panel.table(lines)
        if not panel.rows:
            yield Text(panel.empty, "dim", no_wrap=True)
