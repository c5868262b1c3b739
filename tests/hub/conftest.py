from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.database import Database
from hub.store.ledger import Ledger
from tests.support.databases import KINDS, database_url


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database_url(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    ledger.open()
    yield ledger
    ledger.close()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A look at what was written, on connections of its own."""
    database = Database(url)
    yield database
    database.close()
