"""What a call will use, before it is made; and what it costs."""

import math
from collections.abc import Iterator
from typing import Any, Final

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


class AnswerLengths:
    """What answers to requests without a bound hold, learned from those of each model.

    Mean and variance by exponential weights (Finch, "Incremental calculation of weighted mean and variance",
    2009), so that a model's new habits count after some ten answers.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float, float]] = {}

    def learn(self, model: str, tokens: int) -> None:
        """An answer of this model held so many."""
        count, mean, variance = self._seen.get(model, (0, float(tokens), 0.0))
        weight = max(_WEIGHT, 1 / (count + 1))
        step = tokens - mean
        self._seen[model] = (
            count + 1,
            mean + weight * step,
            (1 - weight) * (variance + weight * step * step),
        )

    def expected(self, model: str) -> int:
        """Tokens that hardly any answer exceeds: two standard deviations above their mean."""
        count, mean, variance = self._seen.get(model, (0, 0.0, 0.0))
        if count < _ENOUGH:
            return DEFAULT_ANSWER_TOKENS
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
