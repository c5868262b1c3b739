from itertools import pairwise

import pytest

from producer_sdk import errors
from producer_sdk.core import (
    FIRST_SILENCE_S,
    Answered,
    Core,
    Effect,
    Failed,
    HandedOver,
    Transmit,
    Waits,
    Withdraw,
)
from producer_sdk.errors import Cancelled, DeadlineExceeded, Overloaded, ProviderError, RateLimited, error_of
from topology.errors import ErrorType
from topology.messages import ErrorReport, Reply, Waiting

DAY_S = 86400.0


def answer(request_id: str) -> bytes:
    return Reply(id=request_id, status="ok", body={"choices": []}).to_bytes()


def refusal(request_id: str, report: ErrorReport) -> bytes:
    return Reply(id=request_id, status="error", provider="groq", error=report).to_bytes()


def error_in(effects: list[Effect]) -> errors.OptimizerError:
    [effect] = effects
    assert isinstance(effect, Failed)
    return effect.error


def pending(*ids: str, timeout: float = DAY_S) -> Core:
    core = Core()
    for request_id in ids:
        assert core.begin(request_id, 0.0, timeout) == [Transmit(request_id)]
    return core


def transmissions(core: Core, until: float) -> list[float]:
    """The instants at which the core wants its one call published, driven by its own `next_due`."""
    instants = []
    while (now := core.next_due()) is not None and now < until:
        assert core.due(now) == [Transmit("r1")]
        instants.append(now)
    return instants


def test_a_silent_request_is_sent_again_at_intervals_that_double_from_30_to_600_s() -> None:
    instants = [0.0, *transmissions(pending("r1"), until=4000.0)]

    intervals = [later - earlier for earlier, later in pairwise(instants)]
    assert intervals[:6] == [30, 60, 120, 240, 480, 600]
    assert set(intervals[6:]) == {600}


def test_a_confirmed_request_is_sent_again_too_as_its_reply_may_be_lost() -> None:
    core = pending("r1")
    core.confirmed("r1")

    assert core.due(30.0) == [Transmit("r1")]


def test_nothing_is_due_before_its_time() -> None:
    core = pending("r1")

    assert core.next_due() == 30
    assert core.due(29.9) == []


def test_a_reconnect_sends_everything_pending_at_once() -> None:
    core = pending("r1", "r2", "r3")
    core.confirmed("r1")
    core.received(answer("r2"))

    assert core.reconnected(5.0) == [Transmit("r1"), Transmit("r3")]
    assert core.due(30.0) == []  # it was just sent


def test_after_any_number_of_reconnects_silence_lasts_no_longer_than_at_first() -> None:
    core = Core()
    core.begin("r1", 0.0, 3600.0)
    for reconnect in range(1, 6):
        core.reconnected(float(reconnect))

    assert core.next_due() == 5 + FIRST_SILENCE_S


def test_a_request_that_was_not_taken_is_tried_again_soon() -> None:
    core = pending("r1")
    core.not_taken("r1", 0.0, "refused by the broker")

    assert core.next_due() == 1
    assert core.due(1.0) == [Transmit("r1")]


def test_an_unroutable_request_fails_at_once_with_the_remedy() -> None:
    core = pending("r1", "r2")

    error = error_in(core.unroutable("r1"))

    assert isinstance(error, Overloaded)
    assert "optimizer topology apply" in error.message
    assert "r1" not in core
    assert "r2" in core


def test_a_deadline_of_an_accepted_request_says_what_it_waited_for() -> None:
    core = pending("r1", timeout=20.0)
    core.confirmed("r1")

    error = error_in(core.due(20.0))

    assert isinstance(error, DeadlineExceeded)
    assert "within 20 s" in error.message
    assert "accepted" in error.message
    assert len(core) == 0


def test_a_deadline_of_a_request_that_was_never_accepted_says_so() -> None:
    error = error_in(pending("r1", timeout=20.0).due(20.0))

    assert isinstance(error, Overloaded)
    assert "could not be handed over within 20 s" in error.message
    assert "never confirmed" in error.message


def test_a_deadline_names_the_obstacle_that_the_driver_or_the_broker_gave() -> None:
    refused = pending("r1", timeout=20.0)
    refused.not_taken("r1", 0.0, "the broker refused it")

    assert "the broker refused it" in error_in(refused.due(20.0)).message
    assert "no connection" in error_in(pending("r1", timeout=20.0).due(20.0, "no connection")).message


def test_an_obstacle_that_was_overcome_is_forgotten() -> None:
    core = pending("r1", timeout=20.0)
    core.not_taken("r1", 0.0, "the broker refused it")
    core.confirmed("r1")

    assert isinstance(error_in(core.due(20.0)), DeadlineExceeded)


def test_at_its_deadline_a_call_fails_and_is_not_sent_again() -> None:
    core = pending("r1", timeout=30.0)

    assert isinstance(error_in(core.due(30.0)), Overloaded)
    assert core.due(60.0) == []
    assert core.next_due() is None


def test_a_reply_wakes_its_own_call_alone() -> None:
    core = pending("r1", "r2")

    [effect] = core.received(answer("r2"))

    assert isinstance(effect, Answered)
    assert (effect.id, effect.reply.status) == ("r2", "ok")
    assert "r1" in core
    assert "r2" not in core


@pytest.mark.parametrize("body", [answer("stranger"), b"", b"nonsense", b"\x81\xa1v\x02"])
def test_a_message_that_nobody_waits_for_wakes_nobody(body: bytes) -> None:
    core = pending("r1")

    assert core.received(body) == []
    assert len(core) == 1


def test_a_repeated_reply_wakes_nobody() -> None:
    core = pending("r1")
    core.received(answer("r1"))

    assert core.received(answer("r1")) == []


def test_a_reply_after_the_deadline_wakes_nobody() -> None:
    core = pending("r1", timeout=20.0)
    core.due(20.0)

    assert core.received(answer("r1")) == []


def test_a_caller_who_has_gone_is_not_waited_for() -> None:
    core = pending("r1")
    assert core.forget("r1") == [Withdraw("r1")]
    assert core.forget("r1") == []

    assert core.received(answer("r1")) == []
    assert core.reconnected(1.0) == []
    assert core.next_due() is None


def test_a_call_that_is_called_off_is_withdrawn_and_ends_in_cancelled() -> None:
    core = pending("r1")

    [withdrawn, failed] = core.cancel("r1")

    assert withdrawn == Withdraw("r1")
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Cancelled)
    assert core.cancel("r1") == []


def test_a_durable_request_is_over_for_its_caller_once_it_is_confirmed() -> None:
    core = Core()
    core.begin("r1", 0.0, 60.0, durable=True)

    assert core.confirmed("r1") == [HandedOver("r1")]
    assert len(core) == 0


def test_a_durable_request_is_sent_again_until_it_is_confirmed() -> None:
    core = Core()
    core.begin("r1", 0.0, 60.0, durable=True)

    assert core.reconnected(5.0) == [Transmit("r1")]
    core.not_taken("r1", 6.0, "RabbitMQ refused the request")
    assert core.due(7.0) == [Transmit("r1")]
    [failed] = core.due(60.0)
    assert isinstance(failed, Failed)
    assert "refused the request; it may have arrived all the same" in failed.error.message


def test_a_durable_request_outlives_a_caller_who_has_gone_and_is_withdrawn_by_one_who_calls_it_off() -> None:
    core = Core()
    core.begin("r1", 0.0, 60.0, durable=True)
    assert core.forget("r1") == []

    core.begin("r2", 0.0, 60.0, durable=True)
    assert core.cancel("r2")[0] == Withdraw("r2")


def test_an_answered_call_has_nothing_to_withdraw() -> None:
    core = pending("r1")
    core.received(answer("r1"))

    assert core.forget("r1") == []


def test_a_caller_is_told_what_a_request_waits_for_and_goes_on_waiting() -> None:
    core = pending("r1")
    waiting = Waiting(id="r1", waits_for="groq's requests_per_minute", until=1234.5)

    assert core.received(waiting.to_bytes()) == [Waits("r1", waiting)]

    assert "r1" in core


def test_an_obstacle_is_told_once_and_again_when_it_is_another_one() -> None:
    core = pending("r1")

    told = [core.not_taken("r1", 0.0, why) for why in ("away", "away", "refused", "refused")]

    obstacles = [[e.waiting.waits_for for e in effects if isinstance(e, Waits)] for effects in told]
    assert obstacles == [["away"], [], ["refused"], []]


def test_news_of_a_call_that_is_over_changes_nothing() -> None:
    core = Core()

    assert core.confirmed("r1") == []
    assert core.unroutable("r1") == []
    assert core.not_taken("r1", 0.0, "refused") == []
    assert core.next_due() is None


def test_an_error_reply_carries_what_the_provider_said() -> None:
    core = pending("r1")
    report = ErrorReport(
        type=ErrorType.PROVIDER_ERROR, message="Bad gateway", retryable=True, provider_status=502
    )

    error = error_in(core.received(refusal("r1", report)))

    assert isinstance(error, ProviderError)
    assert (error.message, error.retryable, error.provider_status) == ("Bad gateway", True, 502)
    assert error.reply is not None
    assert error.reply.provider == "groq"


@pytest.mark.parametrize("error_type", ErrorType)
def test_every_error_of_the_wire_has_an_exception_of_its_own(error_type: ErrorType) -> None:
    error = error_of(ErrorReport(type=error_type, message="No."))

    assert error.type is error_type
    assert isinstance(error, errors.Retryable) != isinstance(error, errors.Permanent)
    assert str(error) == "No."


@pytest.mark.parametrize("retryable", [True, False])
def test_whether_to_try_again_is_what_the_reply_says(retryable: bool) -> None:
    report = ErrorReport(type=ErrorType.RATE_LIMITED, message="No.", retryable=retryable)

    error = error_of(report)

    assert isinstance(error, RateLimited)
    assert error.retryable is retryable


def test_errors_raised_by_the_client_itself_say_whether_to_try_again() -> None:
    assert Overloaded("away").retryable
    assert not errors.InvalidRequest("wrong").retryable
    assert issubclass(errors.ContextTooLong, errors.InvalidRequest)
    assert issubclass(errors.ContentFiltered, errors.InvalidRequest)
