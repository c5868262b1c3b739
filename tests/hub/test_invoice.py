"""Invoices of many shapes are read; what is unclear is an error that names the column and the remedy."""

from decimal import Decimal
from pathlib import Path

import pytest

from hub.invoice import Invoice, read_invoice
from topology.loading import ConfigurationError


def read(tmp_path: Path, text: str) -> Invoice:
    path = tmp_path / "invoice"
    path.write_text(text, "utf-8")
    return read_invoice(path)


@pytest.mark.parametrize(
    "text",
    [
        "call,cost_usd\nc-1,0.25\n",
        "\ufeffCall ID;Cost (USD);model\nc-1;0.25;small\n",
        "idempotency-key\tAmount ($)\nc-1\t$0.25\n",
        "id,amount,currency\nc-1,0.25,usd\n",
        "id,total\nc-1,$ 0.25\n",
        "call_id,price_cents\nc-1,25.00\n",
        "call,input_tokens,input_cost_usd,total_cost_usd\nc-1,9,0.1,0.25\n",
        '{"call_id": "c-1", "cost_usd": 0.25, "model": "small"}\n',
        '{"idempotency_key": "c-1", "amount": "0.25", "currency": "USD"}\n\n',
        "call,cost_usd\nc-1,0.05\nc-1,0.20\n",
    ],
)
def test_what_is_plainly_meant_is_read(tmp_path: Path, text: str) -> None:
    invoice = read(tmp_path, text)

    assert {call: charge.amount_usd for call, charge in invoice.charges.items()} == {"c-1": Decimal("0.25")}
    assert invoice.total_usd == Decimal("0.25")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("request,cost_usd\nr-1,0.25\n", "call: no column .* name it `call` .*idempotency-key"),
        ("call,tokens\nc-1,25\n", "cost_usd: no column .* name it `cost_usd`"),
        ("call,cost_usd,price_usd\nc-1,1,2\n", "several columns may be it .cost_usd, price_usd.; leave one"),
        ("call,amount\nc-1,25\n", "line 2, amount: of which currency. name the column amount_usd"),
        ("call,amount,currency\nc-1,25,EUR\n", "line 2, currency: 'eur'"),
        ("call,cost_usd\nc-1,0.25\nc-2,much\n", "line 3, cost_usd: 'much' is no amount; write USD"),
        ("call,cost_usd\nc-1,\n", "line 2, cost_usd: '' is no amount"),
        ("call,cost_usd\nc-1,nan\n", "line 2, cost_usd: 'nan' is no amount"),
        ("call,cost_usd\nc-1,\"0,25\"\n", "line 2, cost_usd: '0,25' is no amount"),
        ('{"call": "c-1", "cost_usd": 1}\nnothing\n', "line 2: is no JSON object"),
        ("call,cost_usd\nc-1,1e99\n", "line 2, cost_usd: '1e99' is no amount"),
        ("call,cost_usd\nc-1,1e-999999999\n", "line 2, cost_usd: '1e-999999999' is no amount"),
        ('{"call": "c-\\ud800", "cost_usd": 1}\n', "line 1, call: holds characters"),
        ('{"call": "c-1", "cost_usd": true}\n', "line 1, cost_usd: 'True' is no amount"),
        ("call,cost_usd\nc-1\n", "line 2, cost_usd: '' is no amount"),
        ('[{"call": "c-1"}]', "line 1: is no JSON object; write one on each line"),
        ("call,cost_usd\n", "holds no lines"),
        ("", "holds no lines"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_refused_with_the_remedy(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as refused:
        read(tmp_path, text)

    assert str(refused.value).startswith("invoice: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv: cannot be read: No such file"):
        read_invoice(tmp_path / "nowhere.csv")


def test_an_amount_is_as_exact_as_it_is_written_and_to_the_cent_at_least(tmp_path: Path) -> None:
    invoice = read(tmp_path, "call,cost_usd\na,12\nb,0.5\nc,0.0012\nd,1.5e-7\ne,0.123456789012345\n")

    assert {call: float(charge.within_usd) for call, charge in invoice.charges.items()} == pytest.approx(
        {"a": 0.005, "b": 0.005, "c": 0.00005, "d": 5e-9, "e": 1e-9}
    )


def test_lines_that_name_no_call_are_kept_apart(tmp_path: Path) -> None:
    invoice = read(tmp_path, "call,cost_usd\nc-1,0.25\n,9.99\n")

    assert (invoice.lines, invoice.nameless, invoice.total_usd) == (2, 1, Decimal("10.24"))
