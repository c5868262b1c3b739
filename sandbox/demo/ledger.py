"""The calls that providers saw: from the simulators' ledgers, or, for a real one, from the replies."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from sandbox.demo.agents import Sent
from sandbox.demo.errors import DemoFailed
from sandbox.demo.workload import Content
from sandbox.simulator import Entry, Summary

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Call:
    """One call of a provider.

    Attributes:
        request_id: The request it was made for.
        cost_usd: What was billed; None where the price is not known.
        is_billed: Whether an answer was generated, and so has to be paid; others were refused or failed.
        began: When it arrived, epoch seconds; None where nobody recorded it.
        ended: When it ended, epoch seconds.
    """

    request_id: str | None
    cost_usd: float | None
    is_billed: bool = True
    began: float | None = None
    ended: float | None = None


async def read_ledgers(simulators: Iterable[str]) -> list[Call]:
    """All calls that reached the simulators, in the order of arrival at each.

    Args:
        simulators: Their base URLs, ending in `/v1`.

    Raises:
        DemoFailed: One does not answer, or its entries and its summary do not agree.
    """
    # Admin calls go to loopback, whatever proxy the environment names.
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        pages = await asyncio.gather(*(_read(client, base_url) for base_url in simulators))
    return [call for page in pages for call in page]


async def _read(client: httpx.AsyncClient, base_url: str) -> list[Call]:
    admin = f"{base_url.removesuffix('/v1')}/_simulator"
    try:
        listed = (await client.get(f"{admin}/ledger", params={"since": 0})).raise_for_status().json()
        summed = (await client.get(f"{admin}/summary")).raise_for_status().json()
    except httpx.HTTPError as error:
        raise DemoFailed(f"the ledger of the simulator at {base_url} cannot be read: {error}") from error
    entries = [Entry.model_validate(row) for row in listed["entries"]]
    summary = Summary.model_validate(summed)
    if (len(entries), sum(e.billed for e in entries)) != (summary.calls, summary.billed):
        raise DemoFailed(f"the ledger of the simulator at {base_url} does not agree with its summary")
    return [_call(entry) for entry in entries]


def _call(entry: Entry) -> Call:
    return Call(
        request_id=entry.request_id,
        cost_usd=entry.cost_usd,
        is_billed=entry.billed,
        began=entry.arrived_at,
        ended=entry.finished_at,
    )


def calls_of_replies(requests: Sequence[Sent]) -> list[Call]:
    """The calls that the replies speak of: of a real provider there is no ledger to read.

    Attempts that a reply reports besides the one that answered it failed, and were not billed.
    """
    calls: list[Call] = []
    for sent in requests:
        if sent.error is None and sent.source == "provider":
            calls.append(Call(sent.request_id, sent.cost_usd))
            calls += [Call(sent.request_id, 0.0, is_billed=False)] * (sent.attempts - 1)
    calls += [Call(None, 0.0, is_billed=False)] * sum(_attempts_in_vain(requests).values())
    return calls


def _attempts_in_vain(requests: Iterable[Sent]) -> dict[Content, int]:
    """Calls for what ended in an error: all who waited for the same are told of the same attempts."""
    attempts: dict[Content, int] = {}
    for sent in requests:
        if sent.error is not None:
            attempts[sent.ask.content] = max(attempts.get(sent.ask.content, 0), sent.attempts)
    return attempts
