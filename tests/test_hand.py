"""What a line has in hand: which goes next, and where it stands among what other workers hold."""

from typing import Any

import pytest
from pamqp.commands import Basic

from producer_sdk.transport import Delivery
from workers.hand import Hand, Held, Turn
from workers.replies import PRESSES
from workers.sides import TURN

COMMON, BESIDE = "jobs.groq.any.normal", "jobs.groq.any.normal.1"
NOW = 1_800_000_000.0


def delivery(agent: str, turn: float, queue: str = COMMON, *, presses_at: float = NOW + 60) -> Delivery:
    headers: dict[str, Any] = {TURN: f"{turn:.6f}", PRESSES: f"{presses_at:.3f}"}
    properties = Basic.Properties(app_id=agent, headers=headers)
    nowhere: Any = None
    return Delivery(b"", "optimizer.jobs", queue, queue, False, properties, 1, nowhere)


def hand(*deliveries: Delivery, **changes: Any) -> Hand:
    """One of four workers' where a hog waits beside nineteen others, of whom it holds these."""
    made = Hand(COMMON)
    made.agents, made.workers, made.prefetch = {COMMON: 19, BESIDE: 1}, 4, 10
    for name, value in changes.items():
        setattr(made, name, value)
    for one in deliveries:
        made.add(one)
    return made


def take_hog(made: Hand) -> tuple[Held, Turn]:
    """Takes one after the other until it is the hog's; nothing starts."""
    while (taken := made.take(NOW))[0].agent != "hog":
        pass
    return taken


@pytest.mark.parametrize("gives_way", [True, False])
def test_whose_queue_gives_way_has_had_its_turn(gives_way: bool) -> None:
    made = hand(delivery("hog", 40.0, BESIDE), *(delivery(f"agent-{n}", 2.0) for n in range(9)))
    ahead, turn = take_hog(made)
    assert made.has_before(ahead)

    made.put_back(ahead)
    if not gives_way:
        made.give_back(turn)

    assert (made.take(NOW)[0].agent == "hog") is not gives_way


def test_what_is_earliest_in_hand_gives_way_to_nothing() -> None:
    made = hand(delivery("hog", 4.0, BESIDE), delivery("hog", 8.0, BESIDE), delivery("agent-0", 40.0))

    assert not made.has_before(take_hog(made)[0])


def test_nothing_is_before_what_was_the_last_in_hand() -> None:
    made = hand(delivery("hog", 40.0, BESIDE))

    assert not made.has_before(made.take(NOW)[0])


def agents_in_order(made: Hand) -> list[str]:
    return [made.take(NOW)[0].agent for _ in range(len(made))]


def test_whose_deadline_presses_goes_before_its_turn_the_earliest_first() -> None:
    made = hand(
        delivery("in-turn", 1.0),
        delivery("pressed", 2.0, presses_at=NOW - 1),
        delivery("hard-pressed", 9.0, presses_at=NOW - 5),
    )

    assert agents_in_order(made) == ["hard-pressed", "pressed", "in-turn"]


def test_nobody_goes_more_than_eight_rounds_before_its_turn() -> None:
    made = hand(delivery("in-turn", 1.0), delivery("hog", 9.5, presses_at=NOW - 5))

    assert agents_in_order(made) == ["in-turn", "hog"]


def test_who_was_rounds_ahead_at_another_worker_waits_its_turn() -> None:
    made = hand(delivery("in-turn", 1.0), delivery("pressed", 2.0, presses_at=NOW - 1))

    made.put_back(made.take(NOW)[0], waits_its_turn=True)

    assert agents_in_order(made) == ["in-turn", "pressed"]


def test_what_bears_no_turn_goes_first() -> None:
    made = hand(delivery("pressed", 40.0, presses_at=NOW - 1), delivery("tried-again", 0.0))

    assert agents_in_order(made) == ["tried-again", "pressed"]


@pytest.mark.parametrize(("leaves_a_slot", "following"), [(True, (4.0, "hog")), (False, None)])
def test_who_stands_behind_waits_where_it_may_start(
    leaves_a_slot: bool, following: tuple[float, str] | None
) -> None:
    made = hand(delivery("agent-0", 3.0), delivery("hog", 4.0, BESIDE), agents={COMMON: 1, BESIDE: 1})

    place = made.place_of(made.take(NOW)[0], NOW, leaves_a_slot=leaves_a_slot)

    assert place is not None
    assert (place.queue, place.turn, place.agent, place.next) == (COMMON, 3.0, "agent-0", following)


@pytest.mark.parametrize(("presses_at", "rounds"), [(NOW + 1, 2), (NOW - 1, 8)], ids=["in turn", "pressed"])
def test_jobs_may_be_few_rounds_ahead_of_those_in_other_hands(presses_at: float, rounds: int) -> None:
    made = hand(delivery("agent-0", 4.0, presses_at=presses_at))

    place = made.place_of(made.take(NOW)[0], NOW, leaves_a_slot=True)

    assert place is not None
    assert place.ahead == rounds


@pytest.mark.parametrize("changes", [{"workers": 1}, {"agents": {}}], ids=["one worker", "no queue beside"])
def test_otherwise_agents_need_not_go_round_across_workers(changes: dict[str, Any]) -> None:
    made = hand(delivery("agent-0", 3.0), **changes)

    assert made.place_of(made.take(NOW)[0], NOW, leaves_a_slot=True) is None
