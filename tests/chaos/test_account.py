"""The judge is judged: each thing that may not be makes the account fail, and nothing else does."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.account import Terms, account
from tests.chaos.books import Asked, Books, Call, Kill, Record, Seen
from tests.chaos.load import Ask

TERMS = Terms(requests=2, quotas={"backend.in_call": 1}, kills=1, max_spends=2, least_served=0.0)
DEADLINE = 100.0


def a_request(id_: str, cache: str = "use", error: str | None = None) -> Asked:
    ask = Ask(id_, 0, "agent", "Prompt", cache, "normal", DEADLINE)  # type: ignore[arg-type]
    return Asked(ask, "flight", 0.0, [Seen(id_, True, 1, error, error is None, 1.0)])


def a_right_run() -> Books:
    """Two requests of one flight; its first call died with its backend, its second served both."""
    return Books(
        asked={"r1": a_request("r1"), "r2": a_request("r2")},
        kills=[Kill("backend", "backend.in_call", 0.5)],
        calls=[Call("flight-1", "r1", "client_gone"), Call("flight-2", "r1", "ok")],
        records=[
            Record("flight-1", "flight", "r1", "doubtful", doubted=True, worker="backend-1"),
            Record("flight-2", "flight", "r1", "settled", worker="backend-2"),
        ],
    )


def wrong_figures(books: Books, terms: Terms = TERMS) -> list[str]:
    return [figure.name for figure in account(books, terms) if figure.wrongs]


def test_a_right_run_has_no_wrong_figure() -> None:
    assert wrong_figures(a_right_run()) == []


def without_a_record(books: Books) -> None:
    del books.records[1]


def with_a_second_record(books: Books) -> None:
    books.records.append(books.records[1])


def with_a_record_of_another_request(books: Books) -> None:
    books.records[1] = replace(books.records[1], request_id="r9")


def with_a_call_id_used_twice(books: Books) -> None:
    books.calls.append(books.calls[1])


def with_a_call_without_an_id(books: Books) -> None:
    books.calls[1] = replace(books.calls[1], id=None)


def with_a_record_without_an_end(books: Books) -> None:
    books.records[1] = replace(books.records[1], state="running")


def with_a_doubt_that_no_kill_explains(books: Books) -> None:
    books.records[1] = replace(books.records[1], state="doubtful", doubted=True)


def with_a_doubt_about_a_living_worker(books: Books) -> None:
    books.survivors.add("backend-1")


def with_more_doubtful_calls_than_kills(books: Books) -> None:
    books.records[1] = replace(books.records[1], state="doubtful", doubted=True, worker="backend-1")


def with_a_call_too_many(books: Books) -> None:
    books.calls.append(Call("flight-3", "r2", "ok"))
    books.records.append(Record("flight-3", "flight", "r2", "settled"))


def with_a_request_answered_twice(books: Books) -> None:
    books.asked["r2"].ends = [replace(books.asked["r2"].ends[0], told=2)]


def with_two_ends_of_a_request(books: Books) -> None:
    books.asked["r2"].ends *= 2


def with_a_request_never_answered(books: Books) -> None:
    books.asked["r2"].ends = []


def with_another_ones_answer(books: Books) -> None:
    books.asked["r2"].ends = [replace(books.asked["r2"].ends[0], right=False)]


def with_an_error_of_another_kind(books: Books) -> None:
    books.asked["r2"] = a_request("r2", error="internal: something broke")


def with_an_early_deadline(books: Books) -> None:
    books.asked["r2"] = a_request("r2", error="deadline_exceeded: no answer within 100 s")


def with_spends_that_were_not_used_up(books: Books) -> None:
    books.asked["r2"] = a_request("r2", error="provider_error: max_spends allows no more")


def with_a_waiter_left(books: Books) -> None:
    books.left.append("a waiter is left in o1:waiters:flight")


def with_a_worker_that_ended_by_itself(books: Books) -> None:
    books.wrongs.append("front 7 ended by itself")


def with_a_point_that_was_spared(books: Books) -> None:
    books.kills = [Kill("backend", None, 0.5)]


def with_too_few_requests(books: Books) -> None:
    del books.asked["r2"]


@pytest.mark.parametrize(
    ("spoil", "figure"),
    [
        (without_a_record, "calls with exactly one record"),
        (with_a_second_record, "calls with exactly one record"),
        (with_a_record_of_another_request, "calls with exactly one record"),
        (with_a_call_id_used_twice, "calls with exactly one record"),
        (with_a_call_without_an_id, "calls with exactly one record"),
        (with_a_record_without_an_end, "records settled or doubtful"),
        (with_a_doubt_that_no_kill_explains, "doubtful spends"),
        (with_a_doubt_about_a_living_worker, "doubtful spends"),
        (with_more_doubtful_calls_than_kills, "doubtful spends"),
        (with_a_call_too_many, "calls for a flight"),
        (with_a_request_answered_twice, "answered exactly once"),
        (with_two_ends_of_a_request, "answered exactly once"),
        (with_a_request_never_answered, "answered exactly once"),
        (with_another_ones_answer, "the right answer"),
        (with_an_error_of_another_kind, "errors"),
        (with_an_early_deadline, "errors"),
        (with_spends_that_were_not_used_up, "errors"),
        (with_a_waiter_left, "left at rest"),
        (with_a_worker_that_ended_by_itself, "else"),
        (with_a_point_that_was_spared, "points with their kills"),
        (with_too_few_requests, "requests"),
    ],
)
def test_what_may_not_be_makes_the_account_fail(spoil: Callable[[Books], None], figure: str) -> None:
    books = a_right_run()

    spoil(books)

    assert figure in wrong_figures(books)


def test_too_few_results_make_it_fail() -> None:
    books = a_right_run()
    books.asked["r2"] = a_request("r2", error="deadline_exceeded: no answer within 100 s")
    late = replace(books.asked["r2"].ends[0], ended_at=DEADLINE)
    books.asked["r2"].ends = [late]

    assert wrong_figures(books) == []
    assert wrong_figures(books, replace(TERMS, least_served=0.99)) == ["ended in a result"]


def test_an_error_after_max_spends_doubtful_calls_is_explained() -> None:
    books = a_right_run()
    books.records[1] = replace(books.records[1], state="doubtful", doubted=True)
    books.kills *= 2
    books.asked["r2"] = a_request("r2", error="provider_error: max_spends allows no more")

    assert wrong_figures(books) == []


def test_each_refresh_may_buy_once() -> None:
    books = a_right_run()
    with_a_call_too_many(books)
    books.asked["r2"] = a_request("r2", cache="refresh")

    assert wrong_figures(books) == []


def test_a_flush_allows_one_call_more_for_a_flight_in_flight_at_it_and_none_for_one_that_was_over() -> None:
    books = a_right_run()
    with_a_call_too_many(books)

    books.flushes = [0.7]
    assert wrong_figures(books) == []
    books.flushes = [60.0]
    assert wrong_figures(books) == ["calls for a flight"]


def test_a_flush_soon_after_a_kill_or_an_outage_may_find_copies_of_what_was_answered() -> None:
    books = a_right_run()
    with_a_call_too_many(books)

    books.flushes = [12.0]  # it was killed at while it was open
    assert wrong_figures(books) == []
    books.kills = [Kill("backend", "backend.in_call", 5.0)]
    assert wrong_figures(books) == ["calls for a flight"]
    books.outages = [(0.5, 9.0)]

    books.flushes = [12.0]
    assert wrong_figures(books) == []
    books.flushes = [60.0]
    assert wrong_figures(books) == ["calls for a flight"]
    books.flushes, books.outages = [12.0], [(5.0, 9.0)]  # it was over before
    assert wrong_figures(books) == ["calls for a flight"]


def test_a_known_failure_may_be_called_again_only_where_the_provider_was_told_to_fail() -> None:
    books = a_right_run()
    with_a_call_too_many(books)
    books.records[2] = replace(books.records[2], failed=True)

    assert wrong_figures(books) == ["calls for a flight"]
    assert wrong_figures(books, replace(TERMS, provider_fails=True)) == []
