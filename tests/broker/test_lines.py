"""Which queue a flight's job goes to: the common one, or one beside it for who has a lot waiting."""

from broker.answers import Lead, Run
from broker.flights import Admission
from tests.broker.test_flights import Desk

_QUEUE = "jobs.groq.any.batch"
_FEW = 8


async def side_of(desk: Desk, agent: str, name: str, queue: str = _QUEUE) -> int:
    waiter = desk.waiter(f"{agent}-{name}", agent)
    [answer] = await desk.flights.admit([Admission(f"f-{agent}-{name}", waiter, 600.0, 600.0, (), queue)])
    assert isinstance(answer, Lead)
    return answer.spot.side


async def sides(desk: Desk, agent: str, count: int, first: int = 0, queue: str = _QUEUE) -> list[int]:
    return [await side_of(desk, agent, str(n), queue) for n in range(first, first + count)]


async def start(desk: Desk, agent: str, numbers: range) -> None:
    for n in numbers:
        waiter = desk.waiter(f"{agent}-{n}", agent)
        assert isinstance(await desk.flights.claim(f"f-{agent}-{n}", waiter, desk.terms()), Run)


async def test_the_first_few_of_each_agent_share_the_common_queue(desk: Desk) -> None:
    assert await sides(desk, "quality", _FEW) == [0] * _FEW
    assert await sides(desk, "writer", _FEW) == [0] * _FEW


async def test_what_an_agent_has_beyond_that_waits_beside_it(desk: Desk) -> None:
    assert await sides(desk, "crawler", _FEW + 5) == [0] * _FEW + [1] * 5
    assert await sides(desk, "writer", 1) == [0]


async def test_each_such_agent_has_a_queue_of_its_own_while_there_are_any(desk: Desk) -> None:
    names = [f"crawler-{n}" for n in range(8)]
    assert [(await sides(desk, name, _FEW + 1))[-1] for name in names] == list(range(1, 9))

    await sides(desk, "crawler-0", 50, _FEW + 1)
    assert (await sides(desk, "the-ninth", _FEW + 1))[-1] == 2


async def test_it_stays_there_until_nothing_of_it_waits(desk: Desk) -> None:
    await sides(desk, "crawler", _FEW + 1)
    await start(desk, "crawler", range(_FEW))
    assert await side_of(desk, "crawler", "more") == 1

    await start(desk, "crawler", range(_FEW, _FEW + 1))
    waiter = desk.waiter("crawler-more", "crawler")
    await desk.flights.claim("f-crawler-more", waiter, desk.terms())

    assert await side_of(desk, "crawler", "again") == 0


async def test_a_queue_that_nobody_uses_any_more_is_given_to_another(desk: Desk) -> None:
    await sides(desk, "crawler", _FEW + 1)
    await start(desk, "crawler", range(_FEW + 1))

    assert (await sides(desk, "digger", _FEW + 1))[-1] == 1


async def test_queues_are_apart(desk: Desk) -> None:
    await sides(desk, "crawler", _FEW + 1)

    assert await sides(desk, "crawler", 1, 500, "jobs.groq.any.normal") == [0]


async def test_who_asks_again_for_the_same_counts_once(desk: Desk) -> None:
    for _ in range(_FEW + 4):
        waiter = desk.waiter("r1", "crawler", durable=True)
        [answer] = await desk.flights.admit([Admission("f-one", waiter, 600.0, 600.0, (), _QUEUE)])
        assert isinstance(answer, Lead)
        assert answer.spot.side == 0


async def turn_of(desk: Desk, agent: str, name: str) -> float:
    waiter = desk.waiter(f"{agent}-{name}", agent)
    [answer] = await desk.flights.admit([Admission(f"f-{agent}-{name}", waiter, 600.0, 600.0, (), _QUEUE)])
    assert isinstance(answer, Lead)
    return answer.spot.turn


async def test_who_has_a_lot_waiting_is_passed_by_those_who_come_later_with_less(desk: Desk) -> None:
    hogs = [await turn_of(desk, "hog", str(n)) for n in range(20)]
    writers = [await turn_of(desk, "writer", str(n)) for n in range(3)]

    assert hogs == sorted(hogs)
    assert hogs[0] < writers[0] < hogs[1] < writers[1] < hogs[2] < writers[2] < hogs[3]


async def test_nobody_saves_up_turns(desk: Desk) -> None:
    hogs = [await turn_of(desk, "hog", str(n)) for n in range(20)]
    await start(desk, "hog", range(10))

    late = [await turn_of(desk, "late", str(n)) for n in range(3)]

    assert hogs[10] < late[0] < hogs[11] < late[1] < hogs[12] < late[2] < hogs[13]


async def test_what_starts_out_of_turn_gives_nobody_an_advantage(desk: Desk) -> None:
    hogs = [await turn_of(desk, "hog", str(n)) for n in range(20)]
    await start(desk, "hog", range(15, 18))  # at a worker that had no others in hand

    assert hogs[0] < await turn_of(desk, "late", "0") < hogs[1]


async def test_one_after_the_other_is_no_way_around_the_turns(desk: Desk) -> None:
    hogs = [await turn_of(desk, "hog", str(n)) for n in range(5)]
    first = await turn_of(desk, "swift", "0")
    await start(desk, "hog", range(1))
    await start(desk, "swift", range(1))

    assert first < hogs[1] < await turn_of(desk, "swift", "1") < hogs[2]


async def test_who_asks_again_keeps_its_turn(desk: Desk) -> None:
    waiter = desk.waiter("r1", "crawler", durable=True)
    admission = Admission("f-one", waiter, 600.0, 600.0, (), _QUEUE)
    answers = [(await desk.flights.admit([admission]))[0] for _ in range(3)]

    assert len({answer.spot for answer in answers if isinstance(answer, Lead)}) == 1


async def test_a_job_that_moves_waits_in_one_line_only(desk: Desk) -> None:
    await sides(desk, "crawler", _FEW + 1)
    elsewhere = "jobs.openai.any.batch"

    spot = await desk.flights.enter(f"f-crawler-{_FEW}", elsewhere, desk.waiter("r", "crawler"))

    assert spot.side == 0
    line = desk.key("line")
    assert await desk.redis.zrange(f"{line}:{elsewhere}|*", 0, -1) == [f"f-crawler-{_FEW}".encode()]
    assert await desk.redis.zcard(f"{line}:{_QUEUE}|*") == _FEW
    assert await desk.redis.zcard(f"{line}:{_QUEUE}|1") == 0


async def test_the_agents_that_wait_in_each_queue_are_counted(desk: Desk) -> None:
    for name in ("crawler", "digger"):
        await sides(desk, name, _FEW + 1)
    await sides(desk, "writer", 1)

    assert await desk.flights.in_line(_QUEUE, 3) == [3, 0, 0, 0]
    await start(desk, "crawler", range(_FEW))
    assert await desk.flights.in_line(_QUEUE, 3) == [2, 1, 0, 0]
