from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from topology.turns import WeightedTurns

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
