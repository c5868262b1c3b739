"""The invoice: a line for each call that was billed and is over, as a provider's customers get it."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from sandbox.simulator.ledger import Entry

Form = Literal["csv", "jsonl"]
_COLUMNS = (
    *("call_id", "request_id", "at", "account", "model", "prompt_tokens", "completion_tokens"),
    "cost_usd",
)


def write_invoice(entries: Iterable[Entry], form: Form) -> str:
    """As CSV with a heading, or as JSON lines.

    `call_id` is the caller's `idempotency-key`, `request_id` its `x-client-request-id`; `at` is when the call
    arrived, in UTC; `cost_usd` is exact to a millionth of a millionth.
    """
    if form == "jsonl":
        return "".join(json.dumps(line) + "\n" for line in _lines(entries))
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_lines(entries))
    return out.getvalue()


def _lines(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        if entry.billed and entry.finished_at is not None:
            yield {
                **{name: getattr(entry, name) for name in _COLUMNS if name != "at"},
                "at": datetime.fromtimestamp(entry.arrived_at, UTC).isoformat(timespec="milliseconds"),
                "cost_usd": f"{entry.cost_usd:.12f}",
            }
