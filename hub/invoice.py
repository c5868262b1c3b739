"""A provider's invoice, read from its file: CSV, or JSON lines. Pure.

One line names a call and what was charged for it. Lines of one call are added up. Columns are known by their
names, whatever their case and whatever stands between the words:

- the call's id, which the provider was sent as `idempotency-key`: `call`, `call_id`, `idempotency_key`, `id`;
- what it cost: `cost`, `amount`, `price`, `total`, `billed` or `charge`, with its unit: `cost_usd`,
  `amount ($)`, `price_cents`. Without one, a column `currency` or a `$` at each amount says that it is USD.

All other columns are passed over.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from topology.loading import ConfigurationError

_CALL: Final = ("call", "call_id", "idempotency_key", "id")
"""The first of these that is there."""
_MONEY: Final = frozenset({"cost", "amount", "price", "total", "billed", "charge", "charged"})
_FILLING: Final = frozenset({"in", "usd", "cent", "cents", "us"})
_DELIMITERS: Final = ",;\t|"
_AMOUNT: Final = re.compile(r"(-?)\s*(\$?)\s*(-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_MOST_DIGITS: Final = 30
"""Before the point or behind it; nobody charges more, or less."""
_CENT: Final = Decimal("0.01")
_NOISE: Final = Decimal("1e-9")
"""USD by which two figures may differ that were added up in another order."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Charge:
    """What the invoice says of one call.

    Attributes:
        amount_usd: The sum of its lines.
        within_usd: How far the exact amount may be from that: half of the last digit that is given, and never
            more than half a cent for a line.
    """

    amount_usd: Decimal
    within_usd: Decimal


@dataclass(frozen=True)
class Invoice:
    """All of it.

    Attributes:
        name: The file's.
        charges: By the call's id.
        lines: How many there are.
        nameless: Lines that name no call, such as fees: how many, and their sum.
    """

    name: str
    charges: Mapping[str, Charge]
    lines: int
    nameless: int
    nameless_usd: Decimal

    @property
    def total_usd(self) -> Decimal:
        """Of all lines."""
        return sum((charge.amount_usd for charge in self.charges.values()), self.nameless_usd)


def read_invoice(path: Path) -> Invoice:
    """Reads it whole.

    Raises:
        ConfigurationError: It cannot be read; the text names the line, the column and the remedy.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path}: cannot be read: {why}") from None
    return _invoice(path.name, _objects(text) if text.lstrip()[:1] in {"{", "["} else _rows(text))


def _rows(text: str) -> Iterator[tuple[int, Row]]:
    heading = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=heading.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    for row in reader:
        yield reader.line_num, row


def _objects(text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_float=Decimal)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ConfigurationError(f"line {number}: is no JSON object; write one on each line, or CSV")
        yield number, row


def _invoice(name: str, rows: Iterable[tuple[int, Row]]) -> Invoice:
    charges: dict[str, Charge] = {}
    lines, nameless, nameless_usd = 0, 0, Decimal(0)
    columns: _Columns | None = None
    try:
        for number, row in rows:
            columns = columns or _Columns.named(list(row))
            call, charge = columns.read(number, row)
            lines += 1
            if not call:
                nameless, nameless_usd = nameless + 1, nameless_usd + charge.amount_usd
                continue
            before = charges.get(call, Charge(Decimal(0), Decimal(0)))
            charges[call] = Charge(
                before.amount_usd + charge.amount_usd, before.within_usd + charge.within_usd
            )
    except (ConfigurationError, csv.Error) as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if columns is None:
        raise ConfigurationError(
            f"{name}: holds no lines; an invoice without calls needs none to be compared"
        )
    return Invoice(name, charges, lines, nameless, nameless_usd)


@dataclass(frozen=True)
class _Columns:
    """Which columns of this file say what."""

    call: str
    amount: str
    currency: str | None
    in_cents: bool
    has_unit: bool

    @classmethod
    def named(cls, names: Sequence[str]) -> "_Columns":
        plain = {_plain(name): name for name in names if isinstance(name, str)}
        there = ", ".join(str(name) for name in names)
        call = next((plain[name] for name in _CALL if name in plain), None)
        if call is None:
            raise ConfigurationError(
                "call: no column holds the calls' ids; name it `call` (the provider was sent the id of each "
                f"call in the header idempotency-key); there are {there}"
            )
        amounts = [name for name in names if isinstance(name, str) and _is_amount(name)]
        if len(amounts) != 1:
            found = f"several columns may be it ({', '.join(amounts)}); leave one" if amounts else (
                f"no column holds the amounts; name it `cost_usd`; there are {there}"
            )  # fmt: skip
            raise ConfigurationError(f"cost_usd: {found}")
        words = set(_plain(amounts[0]).split("_"))
        in_cents = bool(words & {"cent", "cents"})
        has_unit = in_cents or "usd" in words or "$" in amounts[0]
        return cls(call, amounts[0], plain.get("currency"), in_cents, has_unit)

    def read(self, number: int, row: Row) -> tuple[str, Charge]:
        """The call's id, empty where there is none, and its charge."""
        where = f"line {number}, {self.amount}"
        currency = str(row.get(self.currency) or "").strip().lower() if self.currency else ""
        if currency not in {"", "usd", "$", "us$"}:
            raise ConfigurationError(f"line {number}, {self.currency}: {currency!r}: only USD is compared")
        said = row.get(self.amount)
        text = "" if said is None else str(said).strip()
        if not (self.has_unit or currency or "$" in text):
            raise ConfigurationError(
                f"{where}: of which currency? name the column {_plain(self.amount)}_usd if it is USD"
            )
        charge = _charge(text, in_cents=self.in_cents)
        if charge is None:
            raise ConfigurationError(f"{where}: {text[:40]!r} is no amount; write USD, such as 0.00123")
        call = str(row.get(self.call) or "").strip()
        if not call.isprintable():
            raise ConfigurationError(f"line {number}, {self.call}: holds characters that no call's id has")
        return call, charge


def _plain(name: str) -> str:
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))


def _is_amount(name: str) -> bool:
    """Words for money alone, and its unit: so `total_cost_usd` is it, and `input_cost_usd` is not."""
    words = set(_plain(name).split("_"))
    return words == {"usd"} or (bool(words & _MONEY) and words <= _MONEY | _FILLING)


def _charge(text: str, *, in_cents: bool) -> Charge | None:
    match = _AMOUNT.fullmatch(text)
    try:
        amount = Decimal(match[3].replace(",", "")) if match else None
    except InvalidOperation:
        amount = None
    if match is None or amount is None or abs(amount.adjusted()) > _MOST_DIGITS:
        return None
    if match[1]:
        amount = -amount
    if in_cents:
        amount = amount.scaleb(-2)
    digit = Decimal(1).scaleb(int(amount.as_tuple().exponent))
    return Charge(amount, max(_NOISE, min(digit, _CENT) / 2))
