"""`optimizer dead`: what came to no good end, why, and what to do with it."""

import base64
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.declaring import BrokerAway
from broker.kept import Copy, KeptCopies, kept_copies
from console.commands import broker_url, errors_for_people, run, says
from console.replaying import NoWayBack, read, replayed
from console.telling_workers import fail
from console.watching import one_line, quiet_logging
from producer_sdk.settings import AMQP_URL
from producer_sdk.transport import Published, Publisher
from topology.errors import Refused

dead_app = typer.Typer(no_args_is_help=True, help="What came to no good end, and why.")

_PIPED_WIDTH: Final = 200
_ANSWER_S: Final = 10.0
_HIDDEN: Final = "hidden; --body shows it"

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="As `optimizer dead list` shows them.")
]
All = Annotated[bool, typer.Option("--all", help="Every copy there is.")]
ReasonContains = Annotated[
    str | None, typer.Option("--reason-contains", metavar="TEXT", help="Of all, only those with this reason.")
]


@dead_app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one object a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most that are shown, oldest first.")] = 100,
) -> None:
    """Show what is kept, oldest first. Nothing is taken away.

    Who lists at the same time as another sees only what the other does not look at.
    """

    async def look(copies: KeptCopies) -> list[Copy]:
        return await copies.read()

    with errors_for_people():
        found = run(_with_copies(look))
        shown = found[:limit]
        if as_json:
            for copy in shown:
                typer.echo(json.dumps(_facts(copy)))
        else:
            _print(shown)
        if len(found) > limit:
            says(f"{len(found) - limit} more: --limit {len(found)} shows them all")
        if not found:
            says("nothing is kept")


@dead_app.command("show")
def show_command(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As `optimizer dead list` shows it.")],
    body: Annotated[bool, typer.Option("--body", help="With what was asked: prompts and all.")] = False,
) -> None:
    """Show one copy whole, as JSON: its headers and its message, without what was asked."""

    async def look(copies: KeptCopies) -> list[Copy]:
        return [c for c in await copies.read(with_body=lambda c: c.id == id_) if c.id == id_]

    with errors_for_people():
        found = run(_with_copies(look))
        if not found:
            _unknown([id_])
        for copy in found:
            facts = {**_facts(copy), "headers": dict(copy.headers), "message": _message(copy, body=body)}
            typer.echo(json.dumps(facts, indent=2, default=str))


@dead_app.command("replay")
def replay_command(
    ids: Ids = None,
    every: All = False,
    reason_contains: ReasonContains = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds from now: a new deadline for each.")
    ] = None,
) -> None:
    """Send requests and jobs back to the entrance, for a fresh route. A copy goes when that is confirmed.

    A request that was answered already is told the same again; it is not paid for twice.
    """
    wanted = _wanted(ids, every, reason_contains)

    async def replay(copies: KeptCopies) -> list[str]:
        chosen = _chosen(await copies.read(with_body=wanted), wanted, ids)
        async with Publisher(broker_url(AMQP_URL), f"replay-{secrets.token_hex(6)}") as publisher:
            if not await publisher.wait_until_up(_ANSWER_S):
                raise BrokerAway(publisher.why_down())
            failed = []
            for copy in chosen:
                try:
                    message = replayed(copy, timeout)
                except (NoWayBack, Refused) as error:
                    failed.append(one_line(f"{copy.id}: not replayed: {error}"))
                    continue
                if (outcome := await publisher.publish(message, _ANSWER_S)) is not Published.CONFIRMED:
                    raise BrokerAway(f"{copy.id}: RabbitMQ did not take it ({outcome.name.lower()})")
                await copies.remove(copy)
                typer.echo(f"{copy.id}: back in {message.routing_key}")
        return failed

    with errors_for_people():
        if failed := run(_with_copies(replay)):
            fail(failed)


@dead_app.command("drop")
def drop_command(
    ids: Ids = None,
    every: All = False,
    reason_contains: ReasonContains = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget copies for good."""
    wanted = _wanted(ids, every, reason_contains)
    if not yes:
        what = "all of them" if ids is None and reason_contains is None else "them"
        typer.confirm(f"Forget {what} for good?", abort=True)

    async def drop(copies: KeptCopies) -> int:
        chosen = _chosen(await copies.read(), wanted, ids)
        for copy in chosen:
            await copies.remove(copy)
        return len(chosen)

    with errors_for_people():
        typer.echo(f"dropped: {run(_with_copies(drop))}")


async def _with_copies(work: Callable[[KeptCopies], Any]) -> Any:
    quiet_logging()
    async with kept_copies(broker_url(AMQP_URL)) as copies:
        return await work(copies)


def _wanted(ids: Sequence[str] | None, every: bool, reason_contains: str | None) -> Callable[[Copy], bool]:
    if bool(ids) == every:
        fail(["which? Name ids, or give --all"])
    if ids and reason_contains is not None:
        fail(["--reason-contains chooses among --all; leave the ids out"])
    return lambda copy: copy.id in ids if ids else (reason_contains or "") in copy.reason


def _chosen(found: list[Copy], wanted: Callable[[Copy], bool], ids: Sequence[str] | None) -> list[Copy]:
    chosen = [copy for copy in found if wanted(copy)]
    if missing := sorted(set(ids or ()) - {copy.id for copy in chosen}):
        _unknown(missing)
    return chosen


def _unknown(ids: Sequence[str]) -> NoReturn:
    fail(f"no copy has the id {one_line(id_)!r}; see: optimizer dead list" for id_ in ids)


def _facts(copy: Copy) -> dict[str, Any]:
    return {
        "id": copy.id,
        "kept_at": copy.kept_at,
        "queue": copy.queue,
        "agent": copy.agent,
        "request_id": copy.request_id,
        "size_bytes": copy.size_bytes,
        "reason": copy.reason,
    }


def _message(copy: Copy, *, body: bool) -> Any:
    """What it says; the parts that may hold a prompt only where they are asked for."""
    try:
        message: dict[str, Any] = read(copy).model_dump(mode="json")
    except Refused as refused:
        raw = base64.b64encode(copy.body).decode() if body else _HIDDEN
        return {"unreadable": refused.message, "base64": raw}
    request = message.get("request", message)
    if not body and "params" in request:
        request["params"] = _HIDDEN
    return message


def _print(copies: Sequence[Copy]) -> None:
    console = Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("Id", "Kept at (UTC)", "Queue", "Agent", "Request", "Bytes"):
        table.add_column(column, no_wrap=True)
    table.add_column("Reason", overflow="fold")
    for copy in copies:
        cells = (
            copy.id, _instant(copy.kept_at), copy.queue, copy.agent or "-", copy.request_id or "-",
            str(copy.size_bytes), copy.reason,
        )  # fmt: skip
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    if copies:
        console.print(table)


def _instant(epoch_s: float | None) -> str:
    return "-" if epoch_s is None else f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M:%S}"
