"""`optimizer report errors`: what models lack, as their errors have taught, and how requests ended."""

import csv
import dataclasses
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from broker.declaring import BrokerAway
from broker.flights import Flights, StateAway
from broker.lessons import Lesson, Lessons
from broker.opening import open_redis
from console.commands import broker_url, errors_for_people, run, says
from console.report import Format, Period, cell, instant
from console.stats import database_url, opened_database
from console.telling_workers import fail
from console.watching import one_line
from producer_sdk.settings import REDIS_URL, masked
from topology.loading import ConfigurationError

if TYPE_CHECKING:
    from hub.store.final_errors import FinalErrors

T = TypeVar("T")

_TIMEOUT_S: Final = 10.0


@dataclasses.dataclass(frozen=True)
class _Report:
    """What is remembered now, and how requests ended in a period; None: no ledger is at hand."""

    period: Period
    since: float
    until: float
    learned: tuple[Lesson, ...]
    final: "tuple[FinalErrors, ...] | None"


def errors_command(
    period: Annotated[
        Period, typer.Argument(help="Of the final errors: 24 hours, 7 days, 30 days.")
    ] = Period.WEEK,
    form: Annotated[Format, typer.Option("--format", help="Also for programs.")] = Format.MARKDOWN,
    forget: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--forget", metavar="PROVIDER/MODEL FEATURE", help="Have it tried again, and report nothing."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="The file whose section `recorder` counts; default: fleet.toml, if there is one."
        ),
    ] = None,
) -> None:
    """Write what models lack, as their providers said, and in which errors requests ended.

        optimizer report errors
        optimizer report errors day --format json
        optimizer report errors --forget groq/openai/gpt-oss-20b tools

    What a provider plainly said that a model lacks (tools, a parameter, a value of it, pictures, so long a
    prompt; the model itself) is not asked of it again until the time given, by no agent. Requests that use it
    go to other models of their route, or get that error at once. Then one request tries it, and an answer
    forgets it. `--forget` does so now; the workers hear of it within seconds.

    What is remembered is in Redis, the errors of requests are in the recorder's database, where there is one.
    """
    with errors_for_people():
        if forget is not None:
            _forget(*forget)
            return
        learned = run(_with_lessons(Lessons.read))
        until = time.time()
        since = until - period.span_s
        final = _final_errors(config, since)
    typer.echo(_WRITERS[form](_Report(period, since, until, learned, final)), nl=False)


def _forget(model: str, feature: str) -> None:
    name = f"{model} {feature}"
    if not run(_with_lessons(lambda lessons: lessons.forget([name]))):
        there = run(_with_lessons(Lessons.read))
        known = "; ".join(one_line(lesson.name) for lesson in there) or "nothing"
        fail([f"nothing is remembered of {one_line(name)!r}; there is: {known}"])
    typer.echo(f"forgotten: {one_line(name)}")


async def _with_lessons(work: Callable[[Lessons], Awaitable[T]]) -> T:
    url = broker_url(REDIS_URL)
    async with open_redis(url, _TIMEOUT_S) as redis:
        try:
            return await work(Lessons(redis, Flights(redis).prefix))
        except StateAway as error:
            raise BrokerAway(f"Redis at {masked(url)} cannot be reached ({error})") from error


def _final_errors(config: Path | None, since: float) -> "tuple[FinalErrors, ...] | None":
    """As the ledger has them; where there is none, it says so, and the rest is reported all the same."""
    try:
        with opened_database(database_url(config)) as database:
            from hub.store.final_errors import gather_final_errors  # noqa: PLC0415 - an extra's libraries

            return gather_final_errors(database, since)
    except ConfigurationError as error:
        says(f"without the errors of requests: {error}")
        return None


def _as_json(report: _Report) -> str:
    facts = {
        "period": report.period.value,
        "since": report.since,
        "until": report.until,
        "learned": [dataclasses.asdict(lesson) for lesson in report.learned],
        "final": None if report.final is None else [dataclasses.asdict(errors) for errors in report.final],
    }
    return json.dumps(facts, indent=1) + "\n"


def _as_csv(report: _Report) -> str:
    """Both in one table; `about` is `learned` or `final`."""
    rows: list[dict[str, Any]] = [{"about": "learned", **dataclasses.asdict(one)} for one in report.learned]
    rows += [{"about": "final", **dataclasses.asdict(one)} for one in report.final or ()]
    out = io.StringIO()
    columns = ["about", *(field.name for field in dataclasses.fields(Lesson))]
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _as_markdown(report: _Report) -> str:
    lines = ["# What models lack", ""]
    lines += _learned(report) if report.learned else ["Nothing is remembered."]
    if report.final is not None:
        lines += ["", f"# Errors that requests ended in, the last {report.period.value}", ""]
        lines += _final(report.final) if report.final else ["There were none."]
    return "\n".join(lines) + "\n"


def _learned(report: _Report) -> Iterator[str]:
    """The latest first."""
    yield "| model | lacks | times | first seen | last seen | not tried until | the provider said |"
    yield "| --- | --- | ---: | --- | --- | --- | --- |"
    for one in sorted(report.learned, key=lambda lesson: -lesson.last_at):
        until = instant(one.until) if one.until > report.until else "the next request tries it"
        names = (cell(f"{one.provider}/{one.model}"), cell(one.feature), f"{one.times:,}")
        yield _row(*names, instant(one.first_at), instant(one.last_at), until, cell(one.said))


def _final(errors: "tuple[FinalErrors, ...]") -> Iterator[str]:
    yield "| error | provider | model | requests | last seen |"
    yield "| --- | --- | --- | ---: | --- |"
    for one in errors:
        whose = (cell(one.provider or "-"), cell(one.model or "-"))
        yield _row(cell(one.error), *whose, f"{one.times:,}", instant(one.last_at))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


_WRITERS: Final[Mapping[Format, Callable[[_Report], str]]] = {
    Format.MARKDOWN: _as_markdown,
    Format.JSON: _as_json,
    Format.CSV: _as_csv,
}
