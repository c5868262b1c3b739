"""Doubles of the two clients for an agent's own tests: no broker, no provider, no waiting.

They are the clients but for what carries the calls, so that arguments are checked, and refused, as ever::

    import pytest
    from producer_sdk import RateLimited
    from producer_sdk.testing import OptimizerDouble

    @pytest.fixture
    def optimizer():
        with OptimizerDouble("quality") as double:
            yield double

    def test_a_review_asks_for_code_at_high_priority(optimizer):
        optimizer.answers("Looks good")

        assert review(optimizer, "a diff") == "Looks good"
        [call] = optimizer.calls
        assert (call.task, call.priority) == ("code", "high")
        assert "a diff" in call.prompt

    def test_a_review_is_put_off_while_the_limit_is_spent(optimizer):
        optimizer.fails(RateLimited("spent until noon"))

        assert review(optimizer, "a diff") is None

A test that says nothing gets the prompt back as the answer.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from producer_sdk.blocking import Optimizer
from producer_sdk.client import AsyncOptimizer
from producer_sdk.errors import OptimizerError
from producer_sdk.scripted import Answer, AsyncScriptedCalls, Call, Given, Script, ScriptedCalls, When

if TYPE_CHECKING:
    from producer_sdk.calls import AsyncCalls

__all__ = ["Answer", "AsyncOptimizerDouble", "Call", "Given", "OptimizerDouble", "When"]

_NOWHERE: Final = "amqp://localhost"


class _Scripted:
    """What a test says to a double, and what it asks it."""

    _script: Script

    @property
    def calls(self) -> list[Call]:
        """The calls so far, in the order they came."""
        return self._script.calls

    def answers(
        self, *answers: Answer, body: Mapping[str, Any] | None = None, when: When | None = None
    ) -> None:
        """What calls are answered with from now on; the rule that was given last comes first.

        Args:
            answers: One for each call, in their order; the last one for all that follow. Each is a text,
                an OpenAI body, a `Reply`, an error to raise, or a function of the `Call` that returns
                one of these.
            body: The same as an OpenAI body among them.
            when: For which calls: those with this text in their last message, or those that this
                function of the `Call` says yes to. None: all.
        """
        self._script.add(answers if body is None else (*answers, body), when)

    def fails(self, error: OptimizerError, *, when: When | None = None) -> None:
        """Calls end in this error from now on; `when` as for `answers`."""
        self._script.add((error,), when)


class OptimizerDouble(_Scripted, Optimizer):
    """Stands in for `Optimizer`. Takes the same arguments, and needs no URL."""

    def __init__(
        self,
        agent: str,
        *,
        agent_type: str | None = None,
        url: str | None = None,
        client: str | None = None,
    ) -> None:
        super().__init__(agent, agent_type=agent_type, url=url or _NOWHERE, client=client)
        self._script = Script()
        self._scripted_calls = ScriptedCalls(self._script)

    def _driver(self) -> ScriptedCalls:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        return self._scripted_calls


class AsyncOptimizerDouble(_Scripted, AsyncOptimizer):
    """Stands in for `AsyncOptimizer`. Takes the same arguments, and needs no URL."""

    def __init__(
        self,
        agent: str,
        *,
        agent_type: str | None = None,
        url: str | None = None,
        client: str | None = None,
    ) -> None:
        super().__init__(agent, agent_type=agent_type, url=url or _NOWHERE, client=client)
        self._script = Script()
        self._calls = cast("AsyncCalls", AsyncScriptedCalls(self._script, self.reply_to))
