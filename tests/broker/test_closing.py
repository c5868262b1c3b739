import pytest

from broker.answers import Later, Run
from tests.broker.test_claim_permits import claim, end
from tests.broker.test_flights import FLIGHT, Desk
from tests.support.waiting import until


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


async def is_over(desk: Desk, name: str) -> None:
    """The part is half open: its instant lies behind."""
    await desk.redis.set(desk.key(name), desk.start - 1)


async def test_after_its_time_one_call_tries_what_was_closed(desk: Desk) -> None:
    await close(desk, "closed-main")
    await is_over(desk, "closed-main")

    probe = await claim(desk, "a", desk.terms("w2"))
    second = await claim(desk, "b", desk.terms("w3"))

    assert isinstance(probe, Run)
    assert isinstance(second, Later)
    assert second.limit == "closed"
    assert second.until < await desk.flights.now() + 1


async def test_what_let_a_call_in_is_open_for_all(desk: Desk) -> None:
    await close(desk, "closed-main")
    await is_over(desk, "closed-main")
    terms = desk.terms("w2")
    await claim(desk, "a", terms)

    await end(desk, "a", terms)

    for flight in "bcd":
        assert isinstance(await claim(desk, flight, desk.terms(f"w-{flight}")), Run)


async def test_a_call_from_before_opens_nothing(desk: Desk) -> None:
    before = desk.terms("w1")
    await claim(desk, "before", before)
    await close(desk, "closed-main")

    await end(desk, "before", before)

    assert isinstance(await claim(desk, "a", desk.terms("w2")), Later)


async def test_a_probe_that_was_not_sent_leaves_the_trying_to_another(desk: Desk) -> None:
    await close(desk, "closed-main")
    await is_over(desk, "closed-main")
    terms = desk.terms("w2")
    await claim(desk, "a", terms)

    await desk.flights.release("a", terms.token, sent=False)

    assert isinstance(await claim(desk, "b", desk.terms("w3")), Run)
    assert isinstance(await claim(desk, "c", desk.terms("w4")), Later)


async def test_each_refused_probe_doubles_the_time_where_the_provider_names_none(desk: Desk) -> None:
    part, waits = desk.key("closed-main"), []
    for n in range(7):
        terms = desk.terms(f"w{n}")
        assert isinstance(await claim(desk, f"f{n}", terms), Run)
        await desk.flights.release(f"f{n}", terms.token, closed={part: 0.0}, grow_s=10.0)
        later = await claim(desk, f"f{n}", desk.terms("other"))
        assert isinstance(later, Later)
        waits.append(later.until - await desk.flights.now())
        await is_over(desk, "closed-main")

    assert waits == pytest.approx([10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 320.0], abs=1.0)


async def test_calls_that_were_refused_together_count_once(desk: Desk) -> None:
    part, together = desk.key("closed-main"), [desk.terms(f"w{n}") for n in range(5)]
    for n, terms in enumerate(together):
        await claim(desk, f"f{n}", terms)

    for n, terms in enumerate(together):
        await desk.flights.release(f"f{n}", terms.token, closed={part: 0.0}, grow_s=10.0)

    later = await claim(desk, "g", desk.terms("other"))
    assert isinstance(later, Later)
    assert later.until == pytest.approx(await desk.flights.now() + 10.0, abs=1.0)


async def test_a_key_that_refuses_goes_on_being_tried_while_others_work(desk: Desk) -> None:
    await close(desk, "closed-main-0")
    two = (desk.account("main", keys=2),)
    await is_over(desk, "closed-main-0")

    first = await claim(desk, "a", desk.terms("w2", accounts=two))
    second = await claim(desk, "b", desk.terms("w3", accounts=two))

    assert isinstance(first, Run)
    assert isinstance(second, Run)
    assert (first.key_index, second.key_index) == (0, 1)
