import aiormq
import pytest

from producer_sdk.transport import Publisher
from tests.support.waiting import until


async def test_a_broker_that_hangs_up_before_a_word_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's port does while RabbitMQ starts behind it; whether aiormq sees it so is a race."""
    asked = []

    async def hang_up(*_: object, **__: object) -> None:
        asked.append(1)
        raise StopAsyncIteration  # what aiormq raises where the end comes before the first byte

    monkeypatch.setattr(aiormq.Connection, "connect", hang_up)
    async with Publisher("amqp://guest:guest@127.0.0.1:9/", "test") as publisher:
        await until(lambda: len(asked) >= 3 or (publisher.task is not None and publisher.task.done()))

        assert publisher.task is not None
        assert not publisher.task.done()
        assert "closed during the handshake" in str(publisher.last_error)
