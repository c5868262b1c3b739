"""What a look for the reply of a durable request comes to, without any connection."""

import time

import pytest

from producer_sdk import (
    DeadlineExceeded,
    InvalidRequest,
    OptimizerError,
    Overloaded,
    Reply,
    Submitted,
    UnknownJob,
)
from producer_sdk.durable import Taking
from topology.errors import ErrorType
from topology.messages import ErrorReport

NO_QUEUE = "NOT_FOUND - no queue 'reply.tester.job.r1' in vhost '/'"
NODE_DOWN = "NOT_FOUND - home node 'rabbit@b' of durable queue 'r1' in vhost '/' is down or inaccessible"


def taking(*, left_s: float | None = 100.0, timeout: float = 50.0) -> Taking:
    """A look that begins at 0 on the driver's clock."""
    job = "r1" if left_s is None else Submitted("r1", "tester", time.time() + left_s)
    return Taking("tester", job, timeout, 0.0)


def reply(request_id: str = "r1") -> bytes:
    return Reply(id=request_id, status="ok", body={}).to_bytes()


def test_patience_ends_the_look() -> None:
    look = taking()

    assert look.found(0, 1.0) is None
    assert look.until == 50.0
    assert "goes on: ask for its result again" in error_of(look.given_up(50.0), DeadlineExceeded)


def test_the_deadline_ends_it_before() -> None:
    look = taking(left_s=10.0)

    assert look.found(0, 1.0) is None
    assert look.until == pytest.approx(10.0, abs=1.0)
    assert "not answered by its deadline" in error_of(look.given_up(11.0), DeadlineExceeded)


def test_past_the_deadline_what_is_there_is_taken_all_the_same() -> None:
    look = taking(left_s=-10.0)

    assert look.found(1, 1.0) is None
    assert look.until == 50.0


def test_past_the_deadline_with_nothing_there_it_ends_at_once() -> None:
    ended = taking(left_s=-10.0).found(0, 1.0)

    assert ended is not None
    assert "not answered by its deadline" in error_of(ended, DeadlineExceeded)


def test_an_id_alone_knows_no_deadline() -> None:
    look = taking(left_s=None)

    assert look.found(0, 1.0) is None
    assert look.until == 50.0


def test_a_connection_lost_at_the_deadline_leaves_the_question_open() -> None:
    look = taking(left_s=10.0)
    look.found(0, 1.0)
    look.met("the connection was lost")

    assert look.until == 50.0
    assert "within 50 s: the connection was lost" in error_of(look.given_up(50.0), Overloaded)


def test_a_queue_that_is_not_there_ends_the_look() -> None:
    ended = taking().missing(NO_QUEUE)

    assert ended is not None
    assert "never submitted" in error_of(ended, UnknownJob)


def test_a_queue_whose_node_is_down_may_come_back() -> None:
    look = taking()

    assert look.missing(NODE_DOWN) is None
    assert "is down or inaccessible" in error_of(look.given_up(50.0), Overloaded)


def test_a_reply_in_hand_is_not_lost_with_the_connection() -> None:
    look = taking()
    assert look.read(reply())
    look.met("the connection was lost")

    for ended in (look.missing(NO_QUEUE), look.given_up(50.0)):
        assert isinstance(ended, Reply)


@pytest.mark.parametrize("body", [b"nonsense", reply("another"), b""])
def test_what_is_not_the_reply_is_none(body: bytes) -> None:
    assert not taking().read(body)


def test_a_reply_that_is_an_error_is_that_error() -> None:
    look = taking()
    report = ErrorReport(type=ErrorType.DEADLINE_EXCEEDED, message="Too late.")
    look.read(Reply(id="r1", status="error", error=report).to_bytes())

    assert error_of(look.taken(), DeadlineExceeded) == "Too late."


def test_another_agents_request_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="of agent 'tester'"):
        Taking("other", Submitted("r1", "tester", 1.0), 1.0, 0.0)


def error_of(ended: Reply | OptimizerError, kind: type[OptimizerError]) -> str:
    assert type(ended) is kind
    return str(ended)
