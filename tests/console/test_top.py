import asyncio
import json
import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from broker.standings import ClosedPart, LimitStanding
from console.figures import bar, count, rate, span, sparkline, usd
from console.top_frame import VIEWS, Look, View, frame, shares
from console.top_picture import RATES, Agent, Lane, Picture, WorkerSeen, agents, lanes
from console.top_traffic import AgentTraffic, Rate, Traffic
from console.watching_tables import LivePool, LiveWorker, QueueDepth, Status
from sandbox.simulator import SimulatorProcess
from tests.support.commands import optimizer
from tests.support.house import House
from topology.events import EventType
from topology.messages import Event, new_id

NOW = 1_700_000_100.0
SINCE = NOW - 600


def event(type_: EventType, ago_s: float = 5.0, agent: str | None = "quality", **facts: Any) -> Event:
    return Event(id=new_id(), type=type_.value, at=NOW - ago_s, agent=agent, **facts)


def heard(*events: Event) -> Traffic:
    traffic = Traffic()
    for each in events:
        traffic.hear(each, NOW)
    return traffic


def test_each_request_counts_once_by_what_became_of_it() -> None:
    traffic = heard(
        event(EventType.CACHE_HIT, why="fresh"),
        event(EventType.CACHE_HIT, why="served"),  # the same request, sent again
        event(EventType.DEDUPE_JOINED),
        event(EventType.CACHE_MISS),
        event(EventType.CALL_STARTED, provider="groq", model="small"),
        event(EventType.CALL_COMPLETED, cost_usd=0.5),
        event(EventType.CALL_COMPLETED, cost_usd=None),
        event(EventType.CALL_FAILED),
        event(EventType.ERROR),
        event(EventType.WORKER_HEALTH, agent=None),
    )

    a_minute = {what: round(traffic.rate(what, NOW, SINCE).mean * 60, 6) for what in RATES}

    assert a_minute == {
        "requests": 3, "hits": 1, "joins": 1, "errors": 1, "calls": 1, "failed": 1, "usd": 0.5,
    }  # fmt: skip
    assert traffic.started_per_s(NOW, SINCE) == {("groq", "small"): 1 / 60}


def test_a_rate_is_of_the_last_ten_seconds_and_its_line_of_the_last_minute() -> None:
    traffic = heard(*(event(EventType.CACHE_MISS, ago_s) for ago_s in (2, 3, 4, 30, 59.5, 70)))

    requests = traffic.rate("requests", NOW, SINCE)

    assert requests.now == pytest.approx(0.3)
    assert requests.mean == pytest.approx(5 / 60)
    assert (len(requests.line), sum(requests.line), requests.line[-3:]) == (60, 5, (1, 1, 1))


def test_rates_reach_back_no_further_than_somebody_has_listened() -> None:
    traffic = heard(*(event(EventType.CACHE_MISS, 1.0) for _ in range(8)))

    requests = traffic.rate("requests", NOW, since=NOW - 4)

    assert (requests.now, requests.mean) == (2, 2)
    assert len(requests.line) < 5


def test_an_event_from_elsewhere_in_time_cannot_fill_the_memory() -> None:
    traffic = heard(event(EventType.CACHE_MISS, 1e9), event(EventType.CACHE_MISS, -1e9))

    assert traffic.rate("requests", NOW, SINCE).mean == pytest.approx(1 / 60)
    traffic.forget(NOW + 120)
    assert traffic.rate("requests", NOW + 120, SINCE).mean == 0


def test_an_agent_is_shown_with_its_share_of_the_calls_and_what_it_has_waiting() -> None:
    busy = AgentTraffic("busy", requests=2, saved=1, calls=3, errors=0, usd_per_min=0.2)
    calm = AgentTraffic("calm", requests=1, saved=0, calls=1, errors=0, usd_per_min=0)

    found = {agent.agent: agent for agent in agents([busy, calm], {"calm": 4, "silent": 7})}

    assert {name: (agent.share, agent.waiting) for name, agent in found.items()} == {
        "busy": (0.75, 0), "calm": (0.25, 4), "silent": (0, 7),
    }  # fmt: skip


def test_a_lane_holds_what_waits_in_the_queues_beside_it_and_says_what_for() -> None:
    limit = "groq:main requests-60s"
    pool = LivePool("groq", 1, 4, 2, {"any.normal": limit}, ("any",), {"any.normal": NOW + 7})
    worker = LiveWorker("w", ("backend:groq",), "host", 1, "up", (pool,), paused={})
    queues = (
        QueueDepth("requests.high", 3, 1),
        QueueDepth("jobs.groq.any.normal", 8, 1),
        QueueDepth("jobs.groq.any.normal.1", 40, 1),
    )

    entrance, groq = lanes(
        Status((worker,), queues, []),
        None,
        unacked={"jobs.groq.any.normal": 2, "jobs.groq.any.normal.1": 3},
        started={("groq", "small"): 1.5, ("groq", "large"): 0.5},
        came_in=9.0,
    )

    assert (entrance.waiting, entrance.started_per_s) == ({"high": 3, "normal": 0, "batch": 0}, 9.0)
    assert (groq.waiting["normal"], groq.unacked, groq.started_per_s) == (48, 5, 2.0)
    assert (groq.waits_for, groq.opens_at) == (limit, NOW + 7)


def picture(**changes: Any) -> Picture:
    nothing = Rate(0, 0, (0,) * 60)
    rates = dict.fromkeys(RATES, nothing) | {
        "requests": Rate(142.3, 120, tuple(range(60))),
        "hits": Rate(80, 60, ()),
    }
    facts: dict[str, Any] = {
        "lanes": (
            Lane(None, None, {"high": 0, "normal": 0, "batch": 0}, 2, 1, 120),
            *(
                Lane(f"provider-{n}", "any", {"high": 0, "normal": n, "batch": 1204}, None, 1, 12.1,
                     f"provider-{n}:main requests-60s", NOW + 7)
                for n in range(20)
            ),
        ),
        "limits": (
            LimitStanding("groq", "main", None, "requests-60s", 30, 30, 30, NOW + 12),
            LimitStanding("groq", None, None, "concurrency", 32, 4, 11, None),
            LimitStanding(None, None, None, "concurrency", 50, 0, 50, None),
        ),
        "closed": (ClosedPart("mistral", None, None, None, "closed", circuit=True, until=NOW + 8),),
        "agents": tuple(Agent(f"agent-{n:02}", n, n / 2, n, n, n / 400, 0, 0.1) for n in range(28)),
        "workers": (WorkerSeen(LiveWorker("w1", ("front",), "host-1", 4711, "up"), 0.4),),
    }  # fmt: skip
    return Picture(at=NOW, watched_s=600, rates=rates, **(facts | changes))


def lines(shown: Picture, view: View = "all", *, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, record=True)
    console.print(frame(shown, Look(view), width, height))
    return console.export_text().splitlines()


def test_a_terminal_of_80_by_24_shows_all_panels_and_no_line_too_many() -> None:
    shown = lines(picture())

    assert len(shown) == 24
    assert max(map(len, shown)) <= 80
    headings = [line.split()[0] for line in shown if line.split() and line.split()[0].isupper()]
    assert headings == ["QUEUES", "LIMITS", "CLOSED", "AGENTS", "WORKERS"]
    assert "142/s" in shown[1]
    assert "hits 50%" in shown[1]
    assert any(re.match(r"AGENTS \d of 28 ", line) for line in shown)
    assert shown[-1].startswith("1 all 2 queues")


def test_what_is_pressing_is_shown_first() -> None:
    shown = "\n".join(lines(picture()))

    assert "provider-19 any" in shown  # of those that do not all fit, the one with the most to do
    assert "7s main requests/min" in shown
    assert shown.index("groq main") < shown.index("groq  ")  # a limit that is used up
    assert "agent-27" in shown
    assert "circuit open" in shown


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (120, 40), (220, 60)])
@pytest.mark.parametrize("view", VIEWS)
def test_a_frame_fits_any_terminal(view: View, width: int, height: int) -> None:
    shown = lines(picture(wrong=("one", "two", "three", "four")), view, width=width, height=height)

    assert len(shown) == height
    assert max(map(len, shown)) <= width


def test_an_overloaded_provider_shows_how_many_calls_it_gets_now_and_as_configured() -> None:
    assert any("11 (32)" in line for line in lines(picture(), "limits"))


def test_who_is_away_and_what_is_wrong_come_first_and_steer_no_terminal() -> None:
    shown = lines(picture(away=("Redis has not answered for 9s",), wrong=("no \x1b[31mfront",)))

    assert shown[1:3] == ["Redis has not answered for 9s".ljust(len(shown[1])), shown[2]]
    assert shown[2].startswith("no \\x1b[31mfront")


def test_an_empty_fleet_has_a_frame_that_says_so() -> None:
    empty = picture(lanes=(), limits=(), closed=(), agents=(), workers=())

    shown = "\n".join(lines(empty))

    assert "no limit is known: --config FILE says which there are" in shown
    assert "no worker has been heard" in shown
    assert "CLOSED" not in shown


def test_keys_change_the_view_and_the_order() -> None:
    assert Look().pressed("3").view == "limits"
    assert Look("workers").pressed("\t").view == "all"
    assert Look().pressed("s").sort == "waiting"
    assert Look().pressed("x") == Look()


def test_room_is_given_in_turn_and_none_gets_more_than_it_wants() -> None:
    assert shares([10, 1, 3], 8) == [4, 1, 3]
    assert shares([1, 1], 8) == [1, 1]
    assert shares([5, 5], 0) == [0, 0]


def test_numbers_are_short() -> None:
    assert [count(n) for n in (0, 1204, 99_999, 123_456, 1_234_567)] == [
        "0",
        "1,204",
        "99,999",
        "123k",
        "1.2M",
    ]
    assert [rate(n) for n in (0, 0.054, 5.25, 44.1, 142.3)] == ["0", "0.05", "5.2", "44.1", "142"]
    assert [span(n) for n in (-1, 7.2, 200, 14_700, 183_600)] == ["0s", "8s", "3m20s", "4h05m", "2d03h"]
    assert [usd(n) for n in (0, 0.00001, 0.0015, 1234.5)] == ["$0", "<$0.0001", "$0.0015", "$1,234.50"]
    assert [bar(share, 4) for share in (0, 0.001, 0.5, 2)] == [
        ("", "────"), ("╸", "───"), ("━━", "──"), ("━━━━", ""),
    ]  # fmt: skip
    assert sparkline((9, 0, 1, 4, 8), 4) == "▁▂▅█"


async def test_one_frame_for_programs_from_real_brokers(
    own_redis: House, simulator: SimulatorProcess
) -> None:
    fleet = own_redis.simulated(simulator.base_url, provider="requests_per_day = 50")
    async with own_redis.workers(fleet, ["front", "backend:all"]), own_redis.agent("quality") as agent:
        looking = asyncio.create_task(
            optimizer(own_redis, "top", "--once", "--json", "--config", str(own_redis.folder / "fleet.toml"))
        )
        while not looking.done():  # there is no word from it when it listens: ask until it has seen enough
            await agent.chat(f"Hello {asyncio.get_running_loop().time()}", timeout=20)
            await asyncio.wait([looking], timeout=0.1)
    said = await looking

    assert said.exit_code == 0, said.output
    shown = json.loads(said.stdout)
    assert shown["rates"]["requests"]["now"] > 0
    assert shown["rates"]["calls"]["now"] > 0
    assert [one["worker"]["roles"] for one in shown["workers"]] == [["front", "backend:simulated"]]
    assert [lane["provider"] for lane in shown["lanes"]] == [None, "simulated"]
    used = {limit["name"]: limit["used"] for limit in shown["limits"] if limit["account"] is None}
    assert used["requests-86400s"] > 0
    assert [one["agent"] for one in shown["agents"]] == ["quality"]
    assert (shown["wrong"], shown["away"]) == ([], [])
