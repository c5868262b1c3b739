"""`optimizer report errors`: what is remembered in Redis, and what the books say of how requests ended."""

import asyncio
import csv
import io
import json
import time
from typing import Any

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from broker.flights import Flights
from broker.lessons import Lesson, Lessons
from console.main import app
from console.stats import RECORDER_URL
from hub.store.ledger import Ledger
from producer_sdk.settings import REDIS_URL
from tests.support.entries import NOW, answered, event
from tests.support.house import House
from topology.errors import ErrorType

SEEN = time.time() - 60
LESSON = Lesson(
    provider="groq", model="openai/gpt", feature="max_tokens>4096", error=ErrorType.INVALID_REQUEST,
    status=400, said="max_tokens | too large", times=3, first_at=SEEN, last_at=SEEN, until=SEEN + 86400,
)  # fmt: skip
REFUSED: dict[str, Any] = {"status": "error", "cost_usd": None}


@pytest.fixture
def fleet(own_redis: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REDIS_URL, own_redis.redis_url)

    async def learn() -> None:
        async with Redis.from_url(own_redis.redis_url) as redis:
            await Lessons(redis, Flights(redis).prefix).learn(LESSON)

    asyncio.run(learn())


@pytest.fixture
def recorded(fleet: None, ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests that ended in one error of groq's, one in an error of ours, one in an answer."""
    monkeypatch.setenv(RECORDER_URL, url)
    entries = [answered("fine"), answered("late", **REFUSED, provider=None, model=None)]
    entries += [answered(id_, **REFUSED, provider="groq", model="small") for id_ in ("one", "two")]
    for id_, error in (("one", "invalid_request"), ("two", "invalid_request"), ("late", "deadline_exceeded")):
        entries.append(event("error", f"why {id_}", agent="quality", request_id=id_, error=error))
    ledger.record(entries)


def errors(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", "errors", *arguments])


@pytest.mark.usefixtures("recorded")
def test_for_people_it_says_what_each_model_lacks_and_how_requests_ended() -> None:
    lines = errors("month").stdout.splitlines()

    [learned] = [line for line in lines if line.startswith("| groq/openai/gpt |")]
    assert learned.split(" | ")[1:3] == ["max_tokens>4096", "3"]
    assert learned.endswith("| max_tokens \\| too large |")
    ended = [line.split(" | ")[:4] for line in lines if line.startswith(("| invalid_", "| deadline_"))]
    assert ended == [["| invalid_request", "groq", "small", "2"], ["| deadline_exceeded", "-", "-", "1"]]


@pytest.mark.usefixtures("recorded")
def test_for_programs_and_spreadsheets_it_has_both() -> None:
    facts = json.loads(errors("--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(errors("--format", "csv").stdout)))

    assert [(one["feature"], one["times"], one["status"]) for one in facts["learned"]] == [
        ("max_tokens>4096", 3, 400)
    ]
    assert facts["final"][0] == {
        "error": "invalid_request", "provider": "groq", "model": "small", "times": 2, "last_at": NOW + 2,
    }  # fmt: skip
    assert [(row["about"], row["error"], row["times"]) for row in rows] == [
        ("learned", "invalid_request", "3"),
        ("final", "invalid_request", "2"),
        ("final", "deadline_exceeded", "1"),
    ]


@pytest.mark.usefixtures("fleet")
def test_an_operator_has_it_forgotten() -> None:
    mistaken = errors("--forget", "groq/openai/gpt", "tools")
    told = errors("--forget", "groq/openai/gpt", "max_tokens>4096")

    assert (mistaken.exit_code, told.exit_code) == (1, 0)
    assert "there is: groq/openai/gpt max_tokens>4096" in mistaken.output
    assert told.stdout == "forgotten: groq/openai/gpt max_tokens>4096\n"


@pytest.mark.usefixtures("fleet")
def test_without_a_ledger_it_says_so_and_reports_what_is_remembered(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RECORDER_URL, url)

    told = errors("--format", "json")

    assert json.loads(told.stdout)["final"] is None
    assert "optimizer worker recorder" in told.stderr
