from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.turns import FairTurns, WeightedTurns, presses_at

PRIORITIES = {"high": 8, "normal": 3, "batch": 1}

weights = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 9), min_size=1)


def test_over_a_full_cycle_the_shares_are_exact() -> None:
    turns = WeightedTurns(PRIORITIES)

    assert Counter(turns.next(PRIORITIES) for _ in range(12)) == PRIORITIES


def test_a_share_is_spread_and_not_spent_in_a_row() -> None:
    turns = WeightedTurns({"high": 3, "batch": 3})

    taken = [turns.next(["high", "batch"]) for _ in range(6)]

    assert taken[::2] != taken[1::2]
    assert len(set(taken[::2])) == len(set(taken[1::2])) == 1


@given(weights, st.integers(0, 100))
def test_any_run_of_a_cycles_length_holds_exactly_the_shares(shares: dict[str, int], before: int) -> None:
    turns: WeightedTurns[str] = WeightedTurns(shares)
    for _ in range(before):
        turns.next(shares)

    run = Counter(turns.next(shares) for _ in range(sum(shares.values())))

    assert run == shares


@given(weights, st.lists(st.sets(st.sampled_from("abcde")), max_size=60))
def test_whoever_stays_ready_gets_a_turn_whatever_was_before(
    shares: dict[str, int], history: list[set[str]]
) -> None:
    turns: WeightedTurns[str] = WeightedTurns(shares)
    for ready in history:
        turns.next(ready & shares.keys())

    waiting = set(shares)
    for _ in range((len(history) + 2) * sum(shares.values())):
        waiting.discard(turns.next(shares) or "")

    assert not waiting


@given(weights, st.lists(st.sets(st.sampled_from("abcde")), max_size=30))
def test_only_who_is_ready_gets_a_turn(shares: dict[str, int], rounds: list[set[str]]) -> None:
    turns: WeightedTurns[str] = WeightedTurns(shares)

    for ready in (names & shares.keys() for names in rounds):
        chosen = turns.next(ready)
        assert chosen in ready if ready else chosen is None


def test_who_was_away_does_not_save_up_turns() -> None:
    turns = WeightedTurns(PRIORITIES)
    for _ in range(120):
        turns.next(["normal", "batch"])

    run = Counter(turns.next(PRIORITIES) for _ in range(12))

    assert run == PRIORITIES


def test_nobody_ready_takes_no_turn() -> None:
    assert WeightedTurns(PRIORITIES).next([]) is None


def served(turns: FairTurns[str], waiting: list[str], count: int) -> list[str]:
    """Who is served; each of `waiting` is there once for each thing that it has waiting, in that order."""
    order = []
    for _ in range(count):
        place = turns.first(waiting)
        assert place is not None
        order.append(waiting.pop(place))
        turns.use(turns.take(order[-1]))
    return order


def test_who_has_a_lot_waiting_is_served_once_for_each_turn_of_the_others() -> None:
    order = served(FairTurns(), ["hog"] * 100 + list("abc") * 5, 20)

    assert Counter(order) == {"hog": 5, "a": 5, "b": 5, "c": 5}
    assert order[:4] == ["hog", "a", "b", "c"]


def test_who_comes_later_has_saved_up_no_turns_and_missed_none() -> None:
    turns: FairTurns[str] = FairTurns()
    served(turns, ["early"] * 50, 50)

    assert Counter(served(turns, ["early"] * 10 + ["late"] * 10, 10)) == {"early": 5, "late": 5}


def test_a_turn_that_could_not_be_used_comes_again() -> None:
    turns: FairTurns[str] = FairTurns()
    turns.take("a")
    turns.give_back("a")

    assert served(turns, ["b", "a"], 2) == ["b", "a"]
    assert served(turns, ["b", "a", "a"], 2) == ["b", "a"]


def test_nobody_waiting_is_nobodys_turn() -> None:
    assert FairTurns[str]().first([]) is None


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8), max_size=40))
def test_of_those_who_always_wait_none_is_a_turn_ahead(arrivals: list[list[str]]) -> None:
    turns: FairTurns[str] = FairTurns()
    waiting, counts = ["x", "y"] * 100, Counter[str]()
    for new in arrivals:
        waiting += new
        counts[served(turns, waiting, 1)[0]] += 1
        assert abs(counts["x"] - counts["y"]) <= 1


def test_many_agents_come_and_go_without_being_remembered_for_ever() -> None:
    turns: FairTurns[str] = FairTurns()
    for n in range(5000):
        served(turns, [f"agent-{n}"], 1)
        turns.use(turns.take("constant"))

    assert len(turns._ends) <= 1001


@pytest.mark.parametrize(
    ("seconds", "presses_for"), [(10.0, 2.0), (300.0, 60.0), (86400.0, 60.0), (0.0, 0.0)]
)
def test_a_deadline_presses_in_the_last_fifth_and_the_last_minute_at_most(
    seconds: float, presses_for: float
) -> None:
    assert presses_at(1000.0, 1000.0 + seconds) == 1000.0 + seconds - presses_for
