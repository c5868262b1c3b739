"""The tables of `optimizer top`: queues, limits, what is closed, agents, workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rich.table import Table
from rich.text import Text

from broker.standings import ClosedPart, LimitStanding
from console.figures import amount, bar, count, percent, rate, span, usd
from console.top_picture import Agent, Lane, Picture, WorkerSeen
from console.watching import one_line

Sort = Literal["requests", "waiting", "calls", "cost"]

_HEADINGS: Final = "bold on grey19"
_BAR: Final = 14
_SHARE_BAR: Final = 6
_NEARLY: Final = 0.9
_MOST_NAME: Final = 30
_LATE_S: Final = 2.5
"""Heartbeats come each second: one that is later than this has been missed."""
_WINDOWS: Final = {"1s": "s", "60s": "min", "3600s": "h", "86400s": "day", "2592000s": "30 days"}
_MODES: Final = {"pause": "paused", "drain": "drained"}


@dataclass(frozen=True)
class Row:
    """A row; where not all fit, those of the most weight are shown, in the order they have."""

    cells: tuple[Text, ...]
    weight: float = 0


@dataclass(frozen=True)
class Panel:
    """A table whose first heading is its name.

    Attributes:
        columns: Headings; those that begin with `>` are of numbers, the one with `*` takes the room there is.
        rows: In the order to show them.
        empty: What is said where there are none.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    empty: str

    def table(self, room: int) -> Table:
        """The table with at most `room` rows below its headings; the first tells how many there are."""
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style=_HEADINGS)
        chosen = self._chosen(room)
        for index, column in enumerate(self.columns):
            cut = f" {len(chosen)} of {len(self.rows)}" if not index and len(chosen) < len(self.rows) else ""
            table.add_column(
                Text.assemble(column.lstrip(">*"), (cut, "not bold dim")),
                justify="right" if column.startswith(">") else "left",
                ratio=1 if column.startswith("*") else None,
                max_width=None if column.startswith("*") else _MOST_NAME,
            )
        for row in chosen:
            table.add_row(*row.cells)
        return table

    def _chosen(self, room: int) -> Sequence[Row]:
        if len(self.rows) <= room:
            return self.rows
        heaviest = sorted(range(len(self.rows)), key=lambda n: (-self.rows[n].weight, n))[: max(0, room)]
        return [self.rows[n] for n in sorted(heaviest)]


def queues(picture: Picture) -> Panel:
    """Where messages wait, for what, and how many are started."""
    rows = [Row(_lane_cells(lane, picture.at), lane.load) for lane in picture.lanes]
    if parked := picture.elsewhere.get("retry", 0):
        cells = (
            _cell("retry"),
            *(_cell("") for _ in range(5)),
            _cell(f"{count(parked)} parked, to come back"),
        )
        rows.append(Row(cells, parked))
    columns = ("QUEUES", ">high", ">normal", ">batch", ">unacked", ">start/s", "*waits for")
    return Panel(columns, tuple(rows), "no queue has been measured yet")


def limits(picture: Picture) -> Panel:
    """Each limit, the most used first."""
    by_use = sorted(picture.limits, key=lambda limit: (-_share(limit), _whose(limit), limit.name))
    columns = ("*LIMITS", "limit", "used", ">", ">of", ">more in")
    rows = tuple(Row(_limit_cells(limit, picture.at), _share(limit)) for limit in by_use)
    unknown = "no limit is known: --config FILE says which there are"
    return Panel(columns, rows, "no limit has been read" if picture.away else unknown)


def closed(picture: Picture) -> Panel:
    """What is not in use: circuits, keys, accounts, models."""
    rows = tuple(Row(_closed_cells(part, picture.at)) for part in picture.closed)
    return Panel(("*CLOSED", "what", "state", ">tried in"), rows, "nothing is closed")


def agents(picture: Picture, sort: Sort = "requests") -> Panel:
    """Who asks, the busiest first."""
    key = _SORTS[sort]
    busiest = sorted(picture.agents, key=lambda agent: (-key(agent), agent.agent))
    headings = {"requests": ">req/s", "waiting": ">waiting", "calls": ">calls/s", "cost": ">$/min"}
    named = {name: f"{title}▾" if name == sort else title for name, title in headings.items()}
    columns = (
        "*AGENTS", named["requests"], ">saved", named["waiting"], named["calls"], "of calls", ">err/s",
        named["cost"],
    )  # fmt: skip
    rows = tuple(Row(_agent_cells(agent), key(agent)) for agent in busiest)
    return Panel(columns, rows, "nobody has asked in the last minute")


def workers(picture: Picture) -> Panel:
    """Who works; what is silent, or does not reach Redis, comes first where not all fit."""
    rows = tuple(Row(_worker_cells(seen), _concern(seen)) for seen in picture.workers)
    columns = ("*WORKERS", "host", ">pid", ">calls", ">in hand", "Redis", ">heard")
    return Panel(columns, rows, "no worker has been heard")


PANELS: Final[Mapping[str, Callable[[Picture], Panel]]] = {
    "queues": queues, "limits": limits, "closed": closed, "agents": agents, "workers": workers,
}  # fmt: skip

_SORTS: Final[Mapping[Sort, Callable[[Agent], float]]] = {
    "requests": lambda agent: agent.requests_per_s,
    "waiting": lambda agent: agent.waiting,
    "calls": lambda agent: agent.calls_per_s,
    "cost": lambda agent: agent.usd_per_min,
}
SORTS: Final[tuple[Sort, ...]] = tuple(_SORTS)


def _lane_cells(lane: Lane, now: float) -> tuple[Text, ...]:
    name = "requests" if lane.provider is None else f"{lane.provider} {lane.lane}"
    if lane.paused:
        reason = _cell(_MODES.get(lane.paused, lane.paused), "yellow")
    elif not lane.consumers:
        reason = _cell("nobody consumes it", "red")
    else:
        reason = _cell(_waits_for(lane, now), "yellow")
    return (
        _cell(name),
        *(_number(number) for number in lane.waiting.values()),
        _cell("?", "dim") if lane.unacked is None else _number(lane.unacked),
        _rate(lane.started_per_s),
        reason,
    )


def _waits_for(lane: Lane, now: float) -> str:
    """For how long, and for what: the provider stands in the row already."""
    if lane.waits_for is None:
        return ""
    whose, _, limit = lane.waits_for.removeprefix(f"{lane.provider}:").rpartition(" ")
    after = span(lane.opens_at - now) if lane.opens_at and lane.opens_at > now else ""
    return " ".join(word for word in (after, whose, _by_window(limit)) if word)


def _by_window(limit: str) -> str:
    """`requests/min` for `requests-60s`."""
    what, _, window = limit.partition("-")
    return f"{what}/{_WINDOWS.get(window, window)}" if window else what


def _limit_cells(limit: LimitStanding, now: float) -> tuple[Text, ...]:
    share = _share(limit)
    style = "yellow" if share >= _NEARLY else "" if share else "dim"
    most = amount(limit.most)
    if limit.most < limit.amount and limit.back_at is None:  # of a bucket, `most` is its burst
        most = f"{most} ({amount(limit.amount)})"
    return (
        _cell(_whose(limit)),
        _cell(_by_window(limit.name)),
        _bar(share, _BAR, style or "cyan"),
        _cell(amount(limit.used), style),
        _cell(most, style),
        _cell(span(limit.back_at - now) if limit.back_at else "", style),
    )


def _closed_cells(part: ClosedPart, now: float) -> tuple[Text, ...]:
    what = "key" if part.key else "model" if part.model else "account" if part.account else "provider"
    state = "circuit open" if part.circuit and part.state == "closed" else part.state
    whose = " ".join(word for word in (part.provider, part.account, part.model or part.key) if word)
    style = "red" if part.state in {"closed", "disabled"} else "yellow"
    until = span(part.until - now) if part.until else "now" if part.state == "half open" else ""
    return _cell(whose), _cell(what), _cell(state, style), _cell(until)


def _agent_cells(agent: Agent) -> tuple[Text, ...]:
    share = _bar(agent.share, _SHARE_BAR, "cyan").append(f"{percent(agent.share, 1):>5}")
    return (
        _cell(agent.agent),
        _rate(agent.requests_per_s),
        _cell(percent(agent.saved_per_s, agent.requests_per_s)),
        _number(agent.waiting),
        _rate(agent.calls_per_s),
        share if agent.share else _cell(""),
        _rate(agent.errors_per_s, "red"),
        _cell(usd(agent.usd_per_min)),
    )


def _worker_cells(seen: WorkerSeen) -> tuple[Text, ...]:
    worker = seen.worker
    running, slots, waiting = (
        sum(pool.running for pool in worker.pools),
        sum(pool.slots for pool in worker.pools),
        sum(pool.waiting for pool in worker.pools),
    )
    style = "dim" if seen.gone else ""
    heard = "gone " if seen.gone else ""
    return (
        _cell(" ".join(worker.roles), style),
        _cell(worker.host, style),
        _cell(str(worker.pid), style),
        _cell(f"{running}/{slots}" if worker.pools else "", style),
        _cell(count(waiting) if worker.pools else "", style),
        _cell(worker.redis, style or ("" if worker.redis == "up" else "red")),
        _cell(f"{heard}{span(seen.heard_s)}", "red" if seen.heard_s > _LATE_S else ""),
    )


def _concern(seen: WorkerSeen) -> float:
    late = seen.heard_s > _LATE_S or seen.worker.redis != "up"
    return 1e6 * late + sum(pool.running for pool in seen.worker.pools)


def _share(limit: LimitStanding) -> float:
    return limit.used / limit.most if limit.most else 1.0


def _whose(limit: LimitStanding) -> str:
    return " ".join(word for word in (limit.provider or "fleet", limit.account, limit.model) if word)


def _bar(share: float, width: int, style: str) -> Text:
    filled, rest = bar(share, width)
    return Text.assemble((filled, style), (rest, "grey30"), no_wrap=True)


def _number(number: float) -> Text:
    return _cell(count(number), "" if number else "dim")


def _rate(per_s: float, style: str = "") -> Text:
    return _cell(rate(per_s), style if per_s else "dim")


def _cell(text: str, style: str = "") -> Text:
    return Text(one_line(text), style, no_wrap=True, overflow="ellipsis")
