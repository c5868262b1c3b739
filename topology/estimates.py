"""What a call will use, before it is made; and what it costs."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from topology.fleet import Model
from topology.messages import Request

DEFAULT_ANSWER_TOKENS: Final = 1024
"""What an answer is taken to hold when the request does not bound it and nothing is known of its model."""

_BYTES_OF_A_TOKEN: Final = 4
_TOKENS_OF_A_PART: Final = 4
"""What frames each message, tool or other part of a prompt, as OpenAI counts it for chat."""
_WEIGHT: Final = 0.1
_ENOUGH: Final = 5
_DEVIATIONS: Final = 2.0


class Seen(NamedTuple):
    """What some answers held: how many answers, the mean of their tokens, and the variance."""

    answers: int
    mean: float
    variance: float


class AnswerLengths:
    """What answers to requests without a bound hold, learned from those of each model.

    Mean and variance by exponential weights (Finch, "Incremental calculation of weighted mean and variance",
    2009), so that a model's new habits count after some ten answers. What other workers have seen counts
    like one's own: else who has seen little would ask for more than they do, and wait behind them.
    """

    def __init__(self) -> None:
        self._own: dict[str, Seen] = {}
        self._others: tuple[Mapping[str, Seen], ...] = ()

    def learn(self, model: str, tokens: int) -> None:
        """An answer of this model held so many."""
        count, mean, variance = self._own.get(model, Seen(0, tokens, 0.0))
        weight = max(_WEIGHT, 1 / (count + 1))
        step = tokens - mean
        self._own[model] = Seen(
            count + 1, mean + weight * step, (1 - weight) * (variance + weight * step * step)
        )

    def told(self) -> dict[str, tuple[int, float, float]]:
        """What the others are to hear, by model."""
        return {
            model: (seen.answers, round(seen.mean, 1), round(seen.variance, 1))
            for model, seen in self._own.items()
        }

    def hear(self, others: Iterable[Mapping[str, tuple[int, float, float]]]) -> None:
        """What each of the others has seen until now, by model."""
        self._others = tuple({model: Seen(*seen) for model, seen in one.items()} for one in others)

    def expected(self, model: str) -> int:
        """Tokens that hardly any answer exceeds: two standard deviations above their mean."""
        parts = [seen for one in (self._own, *self._others) if (seen := one.get(model)) is not None]
        if sum(seen.answers for seen in parts) < _ENOUGH:
            return DEFAULT_ANSWER_TOKENS
        weights = [min(seen.answers, 1 / _WEIGHT) for seen in parts]
        mean = statistics.fmean((seen.mean for seen in parts), weights)
        variance = statistics.fmean((seen.variance + (seen.mean - mean) ** 2 for seen in parts), weights)
        return max(1, round(mean + _DEVIATIONS * math.sqrt(variance)))


def estimated_tokens(request: Request, unbounded: int = DEFAULT_ANSWER_TOKENS) -> tuple[int, int]:
    """Prompt and answer tokens to expect: four bytes of text to a token, and the bound on the answer.

    `unbounded` stands for the answer where the request states no bound.
    """
    text = [part for name in ("messages", "input", "tools") for part in _texts(request.params.get(name))]
    tokens = sum(len(part.encode(errors="replace")) for part in text) // _BYTES_OF_A_TOKEN
    parts = sum(_parts(request.params.get(name)) for name in ("messages", "tools"))
    bound = answer_bound(request)
    return max(1, tokens + _TOKENS_OF_A_PART * parts), unbounded if bound is None else bound


def _texts(value: Any) -> Iterator[str]:
    """All that a model reads of a JSON value; of a picture in a data URL no more than a name."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield "data:" if value.startswith("data:") else value
    elif value is not None:
        yield str(value)


def _parts(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else 0


def answer_bound(request: Request) -> int | None:
    """The most tokens that the answer may hold, as the request says; None: it does not say."""
    if request.operation == "embeddings":
        return 0
    bound = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    return bound if isinstance(bound, int) and bound > 0 else None


def estimated_cost_usd(
    model: Model, request: Request, unbounded: int = DEFAULT_ANSWER_TOKENS
) -> float | None:
    """The price of the call if it uses what `estimated_tokens` says; None when the price is unknown."""
    prompt_tokens, answer_tokens = estimated_tokens(request, unbounded)
    return cost_usd(model, prompt_tokens, answer_tokens)


def cost_usd(model: Model, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
    """What the provider charges for these tokens; None when price or tokens are unknown."""
    prices = (model.input_usd_per_mtok, model.output_usd_per_mtok)
    if prices[0] is None or prices[1] is None or prompt_tokens is None or completion_tokens is None:
        return None
    return (prices[0] * prompt_tokens + prices[1] * completion_tokens) / 1e6
