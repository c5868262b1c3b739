"""The most that anybody could answer in time: small cases computed by hand, and small ones by trying all."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.goodput.asks import Ask, Priority
from benchmarks.goodput.load import Stretch, asks_of
from benchmarks.goodput.offers import Offer
from benchmarks.goodput.optimum import Bucket, Supply, earliest_starts, most_in_time
from benchmarks.goodput.schedule import Fairly, answered_at
from sandbox.demo.trace import Row, Trace


def test_a_window_takes_its_amount_at_once_and_again_a_window_after_each() -> None:
    """Two in 10 s, asked at 0, 1, 2, 3 and 25."""
    supply = Supply(latency_s=1.0, windows=((2, 10.0),))
    assert earliest_starts(supply, [0.0, 1.0, 2.0, 3.0, 25.0]) == [0.0, 1.0, 10.0, 11.0, 25.0]


def test_a_bound_on_calls_in_flight_takes_the_next_when_one_has_ended() -> None:
    """Two at once, 3 s each."""
    supply = Supply(latency_s=3.0, concurrency=2)
    assert earliest_starts(supply, [0.0, 0.0, 0.0, 1.0, 1.0]) == [0.0, 0.0, 3.0, 3.0, 6.0]


def test_a_bucket_gives_what_it_holds_and_then_one_each_interval() -> None:
    """It holds three and gets one in 2 s; idle until 20, it is full again and no fuller."""
    supply = Supply(latency_s=1.0, bucket=Bucket(interval_s=2.0, burst=3))
    instants = [0.0, 0.0, 0.0, 0.0, 0.0, 20.0, 20.0, 20.0, 20.0]
    assert earliest_starts(supply, instants) == [0.0, 0.0, 0.0, 2.0, 4.0, 20.0, 20.0, 20.0, 22.0]


def test_of_several_limits_the_latest_counts() -> None:
    """Two in 10 s, and one at a time that takes 4 s."""
    supply = Supply(latency_s=4.0, windows=((2, 10.0),), concurrency=1)
    assert earliest_starts(supply, [0.0, 0.0, 0.0, 0.0]) == [0.0, 4.0, 10.0, 14.0]


def test_what_cannot_be_answered_by_its_deadline_is_lost() -> None:
    """One in 10 s that takes 2 s: answers at 2, 12 and 22; they are wanted by 5, 5, 13, 21 and 30."""
    supply = Supply(latency_s=2.0, windows=((1, 10.0),))
    assert most_in_time([(0.0, deadline) for deadline in (5.0, 5.0, 13.0, 21.0, 30.0)], [supply]) == 3


def test_an_answer_on_the_deadline_is_in_time_and_one_behind_it_is_not() -> None:
    """Asked at 1, answered at 3."""
    assert most_in_time([(1.0, 3.0)], [Supply(latency_s=2.0)]) == 1
    assert most_in_time([(1.0, 2.9)], [Supply(latency_s=2.0)]) == 0


def test_providers_add_up_and_each_has_its_own_latency() -> None:
    """One in 100 s each: the slow one's only answer is at 8, too late for all but the last."""
    fast, slow = (Supply(latency_s, ((1, 100.0),)) for latency_s in (1.0, 8.0))
    assert most_in_time([(0.0, 2.0), (0.0, 3.0)], [fast, slow]) == 1
    assert most_in_time([(0.0, 2.0), (0.0, 9.0)], [fast, slow]) == 2


def test_nothing_asked_is_nothing_answered() -> None:
    """Not an error either."""
    assert most_in_time([], [Supply(latency_s=1.0)]) == 0


@given(
    asked=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 8)), min_size=1, max_size=5),
    amount=st.integers(1, 2),
    window_s=st.integers(1, 6),
    latency_s=st.integers(1, 3),
)
def test_no_order_of_the_requests_answers_more(
    asked: list[tuple[int, int]], amount: int, window_s: int, latency_s: int
) -> None:
    """Every order in which a provider may start them, each as soon as it can; what is late is left out."""
    spans = [(float(at), float(at + within)) for at, within in asked]
    supply = Supply(float(latency_s), ((amount, float(window_s)),))
    best = max(_in_time(order, amount, window_s, latency_s) for order in permutations(spans))
    assert most_in_time(spans, [supply]) >= best


def _in_time(order: tuple[tuple[float, float], ...], amount: int, window_s: int, latency_s: int) -> int:
    starts: list[float] = []
    for at, deadline in order:
        freed_at = starts[-amount] + window_s if len(starts) >= amount else 0.0
        start = max(at, freed_at, starts[-1] if starts else 0.0)
        if start + latency_s <= deadline:
            starts.append(start)
    return len(starts)


def _ask(
    name: str,
    at_s: float,
    within_s: float,
    characters: int = 4,
    *,
    agent: str = "agent",
    priority: Priority = "normal",
) -> Ask:
    return Ask(name, at_s, within_s, agent, priority, "x" * characters, max_tokens=1)


def test_a_schedule_keeps_the_limits_and_gives_way_to_the_nearest_deadline() -> None:
    """One request a minute, 2 s each: `b` has less time; `c` can wait for the next minute, `a` cannot."""
    asks = [_ask("a", 0.0, 30.0), _ask("b", 0.0, 5.0), _ask("c", 0.0, 90.0)]
    answers = answered_at(asks, [Offer("one", latency_s=2.0, usd_per_mtok=0.1, requests=1)], faster=1.0)
    assert answers.keys() == {"b", "c"}
    assert answers["b"] == 2.0
    assert 62.0 <= answers["c"] < 62.1


def test_a_schedule_keeps_token_limits() -> None:
    """Ten tokens a minute: of two requests of 8 and one of 2, one large one and the small one fit."""
    asks = [_ask("a", 0.0, 30.0, 28), _ask("b", 0.0, 31.0, 28), _ask("c", 0.0, 32.0, 4)]
    answers = answered_at(asks, [Offer("one", latency_s=2.0, usd_per_mtok=0.1, tokens=10)], faster=1.0)
    assert answers.keys() == {"a", "c"}


def test_a_fair_schedule_goes_by_shares_and_lets_agents_go_round() -> None:
    """One at a time: two of three permits are for `high`; of `normal`, `b` goes after one of `a`."""
    offer = Offer("one", latency_s=1.0, usd_per_mtok=0.1, concurrency=1)
    asks = [
        *(_ask(f"a{n}", 0.0, 60.0, agent="a") for n in range(3)),
        _ask("b", 0.0, 60.0, agent="b"),
        *(_ask(f"high{n}", 0.0, 60.0, priority="high") for n in range(4)),
    ]
    answers = answered_at(asks, [offer], 1.0, Fairly({"high": 2.0, "normal": 1.0}))
    assert sorted(answers, key=lambda name: answers[name]) == [
        "high0", "a0", "high1", "high2", "b", "high3", "a1", "a2",
    ]  # fmt: skip


def test_in_a_fair_schedule_whose_deadline_presses_goes_before_its_turn() -> None:
    """Half a second each: `b` is the thirteenth, and within the last fifth of its 5 s it goes next."""
    offer = Offer("one", latency_s=0.5, usd_per_mtok=0.1, concurrency=1)
    asks = [_ask(f"a{n}", 0.0, 60.0, agent=f"a{n}") for n in range(12)]
    asks.append(_ask("b", 0.0, 5.0, agent="b"))

    answers = answered_at(asks, [offer], 1.0, Fairly({"normal": 1.0}))

    assert sorted(answers, key=lambda name: answers[name]).index("b") == 8


def test_the_requests_are_the_traces_at_its_instants_so_many_times_as_fast() -> None:
    """The stretch from 60 s on, all of it."""
    rows = tuple(Row(1000.0 + 30.0 * n, (n,), 5) for n in range(6))
    trace = Trace("a trace", rows, knows_repeats=False, more=False)
    asks = asks_of(trace, Stretch(from_s=60.0, seconds=60.0, faster=6.0, per_minute=2.0, seed=1))
    assert [asked.at_s for asked in asks] == [0.0, 5.0]
    assert len({asked.prompt for asked in asks}) == 2
