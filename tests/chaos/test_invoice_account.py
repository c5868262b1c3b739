"""The account of an invoice: a right run is right, and whatever is off makes a figure wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.chaos.invoice_account import Evidence, Row, judge
from tests.chaos.invoice_run import Seen

ZERO, PRICE = Decimal(0), Decimal("0.00025")
SEEN = Seen(ends=Counter(provider=2), kills=Counter(backend=1), calls=4)


def line(call: str, usd: str = "0.000250000000") -> dict[str, str]:
    return {"call_id": call, "cost_usd": usd}


def settled(call: str, cost: Decimal = PRICE, outcome: str = "answer") -> Row:
    return Row(call, "settled", outcome, cost, cost, unpriced=False)


def a_right_run() -> Evidence:
    """An answer, a refusal, and two doubtful calls: the one was billed, the other was not."""
    rows = [settled("a"), settled("e", ZERO, "error")]
    doubtful = [Row(call, "doubtful", None, ZERO, ZERO, unpriced=False) for call in ("d1", "d2")]
    after = [
        *rows,
        Row("d1", "settled", None, ZERO, PRICE, False),
        Row("d2", "settled", None, ZERO, ZERO, False),
    ]
    return Evidence(
        outcomes=Counter(ok=2, client_gone=1, server_error=1),
        lines=[line("a"), line("d1")],
        before=[*rows, *doubtful],
        after=after,
        at_last=list(after),
        found={
            "unexplained": {},
            "calls": {"billed": [{"call": "d1"}], "not billed": [{"call": "d2"}]},
            "ledger_before_usd": 0.00025,
            "ledger_after_usd": 0.0005,
            "invoice_usd": 0.0005,
        },
        again={"written": 0},
        status=0,
        reported_usd=0.0005,
    )


def wrong_figures(told: Evidence, calls: int = 4, kills: int = 1) -> list[str]:
    return [figure.name for figure in judge(told, SEEN, calls, kills) if figure.wrongs]


def test_a_right_run_has_no_wrong_figure() -> None:
    assert wrong_figures(a_right_run()) == []
    assert wrong_figures(a_right_run(), calls=5, kills=2) == ["calls that reached the provider", "kills"]


def with_a_cost_that_is_off_by_less_than_a_cent(told: Evidence) -> None:
    told.before[0] = replace(told.before[0], cost=Decimal("0.00026"))


def with_an_answer_that_is_not_on_the_invoice(told: Evidence) -> None:
    told.before.append(settled("b"))


def with_an_error_that_was_billed(told: Evidence) -> None:
    told.lines.append(line("e"))


def with_a_call_without_an_end(told: Evidence) -> None:
    told.before[0] = replace(told.before[0], state="running")


def with_a_line_that_has_no_record(told: Evidence) -> None:
    told.lines.append(line("x"))


def with_two_lines_of_one_call(told: Evidence) -> None:
    told.lines.append(line("a"))


def with_an_unknown_price(told: Evidence) -> None:
    told.before[0] = replace(told.before[0], unpriced=True)


def with_a_doubtful_call_that_is_not_listed(told: Evidence) -> None:
    told.found["calls"]["billed"] = []


def with_a_doubtful_call_on_the_wrong_side(told: Evidence) -> None:
    told.found["calls"]["billed"].append({"call": "d2"})


def with_something_unexplained(told: Evidence) -> None:
    told.status = 1


def with_a_doubt_left(told: Evidence) -> None:
    told.after[2] = replace(told.after[2], state="doubtful")
    told.at_last[2] = told.after[2]


def with_another_sum(told: Evidence) -> None:
    told.after[3] = replace(told.after[3], paid=Decimal("0.01"))
    told.at_last[3] = told.after[3]


def with_another_sum_in_the_report(told: Evidence) -> None:
    told.reported_usd = 0.00051


def with_rows_that_change_again(told: Evidence) -> None:
    told.at_last[0] = replace(told.at_last[0], paid=ZERO)


@pytest.mark.parametrize(
    ("spoil", "figure"),
    [
        (with_a_cost_that_is_off_by_less_than_a_cent, "settled records equal to the invoice"),
        (with_an_answer_that_is_not_on_the_invoice, "settled records equal to the invoice"),
        (with_an_error_that_was_billed, "settled records equal to the invoice"),
        (with_a_call_without_an_end, "settled records equal to the invoice"),
        (with_a_line_that_has_no_record, "lines with a record"),
        (with_two_lines_of_one_call, "lines on the invoice"),
        (with_an_unknown_price, "calls of unknown price"),
        (with_a_doubtful_call_that_is_not_listed, "doubtful records"),
        (with_a_doubtful_call_on_the_wrong_side, "doubtful records"),
        (with_something_unexplained, "unexplained by reconcile"),
        (with_a_doubt_left, "doubtful after it"),
        (with_another_sum, "sums after it"),
        (with_another_sum_in_the_report, "sums after it"),
        (with_rows_that_change_again, "changed by doing it again"),
    ],
)
def test_what_may_not_be_makes_the_account_fail(spoil: Callable[[Evidence], None], figure: str) -> None:
    told = a_right_run()

    spoil(told)

    assert figure in wrong_figures(told)
