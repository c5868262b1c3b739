"""Which errors requests ended in, and where."""

from dataclasses import dataclass

from sqlalchemy import func, select

from hub.store.database import Database
from hub.store.tables import requests


@dataclass(frozen=True)
class FinalErrors:
    """The requests of a time that ended in one error.

    Attributes:
        error: Its type, as on the wire.
        provider: Whose error it was, with its `model`; None: no provider was asked.
        times: How many requests.
        last_at: When the last of them was answered, in epoch seconds.
    """

    error: str
    provider: str | None
    model: str | None
    times: int
    last_at: float


def gather_final_errors(database: Database, since: float) -> tuple[FinalErrors, ...]:
    """Those since an instant, in epoch seconds; the most frequent first.

    Raises:
        NothingYet: No recorder ever wrote there.
        StoreAway: It cannot be read now.
    """
    c = requests.c
    times = func.count()
    query = (
        select(func.coalesce(c.error, "unknown"), c.provider, c.model, times, func.max(c.answered_at))
        .where(c.at >= since, c.answered_at.is_not(None), c.status == "error")
        .group_by(c.error, c.provider, c.model)
        .order_by(times.desc(), c.error, c.provider, c.model)
    )
    with database.reading() as connection:
        return tuple(FinalErrors(*row) for row in connection.execute(query))
