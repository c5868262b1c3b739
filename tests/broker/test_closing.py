from collections.abc import AsyncIterator

import pytest

from broker.answers import Later, Run
from sandbox.nodes import Brokers
from tests.broker.test_claim_permits import claim
from tests.broker.test_flights import FLIGHT, Desk, open_desk
from tests.support.waiting import until


@pytest.fixture
async def desk(brokers: Brokers) -> AsyncIterator[Desk]:
    async with open_desk(brokers) as desk:
        yield desk


async def close(desk: Desk, *names: str, for_s: float = 30.0) -> None:
    terms = desk.terms("closer")
    await desk.run(desk.waiter(), terms)
    until_ = desk.start + for_s
    await desk.flights.release(FLIGHT, terms.token, closed={desk.key(n): until_ for n in names})


async def test_a_closed_provider_is_closed_for_every_worker(desk: Desk) -> None:
    await close(desk, "closed-provider")

    later = await claim(desk, "a", desk.terms("w2", closed=(desk.key("closed-provider"),)))

    assert isinstance(later, Later)
    assert later.limit == "closed"
    assert later.until == pytest.approx(desk.start + 30, abs=0.001)


async def test_a_closed_account_leaves_the_others_open(desk: Desk) -> None:
    await close(desk, "closed-one")
    accounts = (desk.account("one"), desk.account("two"))

    runs = [await claim(desk, f"f{n}", desk.terms(accounts=accounts)) for n in range(3)]

    assert [run.account for run in runs if isinstance(run, Run)] == ["two", "two", "two"]


async def test_a_closed_key_leaves_the_accounts_other_keys_open(desk: Desk) -> None:
    await close(desk, "closed-one-0")

    run = await claim(desk, "a", desk.terms(accounts=(desk.account("one", keys=2),)))

    assert isinstance(run, Run)
    assert run.key_index == 1


async def test_an_account_whose_keys_are_all_closed_opens_with_the_first_of_them(desk: Desk) -> None:
    await close(desk, "closed-one-0", for_s=50.0)
    await close(desk, "closed-one-1", for_s=20.0)

    later = await claim(desk, "a", desk.terms(accounts=(desk.account("one", keys=2),)))

    assert isinstance(later, Later)
    assert later.limit == "key"
    assert later.until == pytest.approx(desk.start + 20, abs=0.001)


async def test_what_was_closed_opens_by_itself(desk: Desk) -> None:
    await close(desk, "closed-provider", for_s=await desk.flights.now() - desk.start + 0.2)
    closed = (desk.key("closed-provider"),)

    async def opened() -> bool:
        return isinstance(await claim(desk, "a", desk.terms("w2", closed=closed)), Run)

    await until(opened)


async def test_a_shorter_closing_does_not_open_what_a_longer_one_closed(desk: Desk) -> None:
    await close(desk, "closed-provider", for_s=60.0)
    await close(desk, "closed-provider", for_s=5.0)

    later = await claim(desk, "a", desk.terms(closed=(desk.key("closed-provider"),)))

    assert isinstance(later, Later)
    assert later.until == pytest.approx(desk.start + 60, abs=0.001)
