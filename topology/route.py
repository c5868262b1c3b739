"""The static route: where a request can be answered, in order, before anything has been learned."""

from collections.abc import Iterable
from typing import Final

from topology.errors import ErrorType, Refused
from topology.fleet import Fleet, Model, Provider
from topology.messages import Candidate, Request

AUTO: Final = "auto"
_LONGEST_ROUTE: Final = 8
"""A route travels in every job; nobody waits for a ninth candidate."""


def static_route(fleet: Fleet, request: Request) -> tuple[Candidate, ...]:
    """The candidates for a request, best first.

    `provider/model` is that one; a bare model is every enabled provider that has it, cheapest first;
    `auto` is the models whose `tasks` include the request's, cheapest first, then any. Models of
    unknown price come last.

    Raises:
        Refused: `no_model_available`, with what would have fitted.
    """
    offers = [
        (provider, model)
        for provider, model in _offers(fleet, request.model)
        if _fits(provider, model, request)
    ]
    if not offers:
        raise Refused(ErrorType.NO_MODEL_AVAILABLE, _why_none(fleet, request))
    offers.sort(key=lambda offer: _rank(offer[1], request))
    return tuple(Candidate(provider=p.name, model=m.id) for p, m in offers[:_LONGEST_ROUTE])


def _offers(fleet: Fleet, wanted: str) -> Iterable[tuple[Provider, Model]]:
    provider_name, _, model_id = wanted.partition("/")
    named = fleet.providers.get(provider_name)
    if named is not None and model_id:
        model = named.model(model_id)
        return [(named, model)] if model else []
    if named is not None:  # a provider's name alone: the best model that it has
        return [(named, model) for model in named.models]
    everything = [(p, m) for p in fleet.providers.values() for m in p.models]
    return everything if wanted == AUTO else [(p, m) for p, m in everything if m.id == wanted]


def _fits(provider: Provider, model: Model, request: Request) -> bool:
    constraints = request.constraints
    embeds = model.tasks == ("embedding",)
    return (
        provider.name not in constraints.excluded_providers
        and set(constraints.required_capabilities) <= set(model.capabilities)
        and (request.model != AUTO or embeds == (request.operation == "embeddings"))
        and _affordable(model, request)
    )


def _affordable(model: Model, request: Request) -> bool:
    limit_usd = request.constraints.max_cost_usd
    if limit_usd is None:
        return True
    cost_usd = estimated_cost_usd(model, request)
    return cost_usd is not None and cost_usd <= limit_usd


def _rank(model: Model, request: Request) -> tuple[bool, bool, float]:
    off_task = request.task is not None and request.task not in model.tasks
    return (request.model == AUTO and off_task, model.price is None, model.price or 0.0)


def _why_none(fleet: Fleet, request: Request) -> str:
    if not fleet.providers:
        return (
            "model: no provider is enabled; put a key into the environment (such as GROQ_API_KEY) "
            "or name providers in fleet.toml"
        )
    known = sorted({f"{p.name}/{m.id}" for p in fleet.providers.values() for m in p.models})
    examples = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    if any(True for _ in _offers(fleet, request.model)):
        return f"constraints: no model among those for {request.model!r} meets them all; there are {examples}"
    return f"model: {request.model!r} is offered by no enabled provider; there are {examples}"


DEFAULT_OUTPUT_TOKENS: Final = 1024
"""What an answer is taken to hold when the request does not bound it."""


def estimated_tokens(request: Request) -> tuple[int, int]:
    """Prompt and answer tokens to expect: four bytes of text to a token, and the bound on the answer."""
    params = request.params
    text = sum(len(repr(v)) for k, v in params.items() if k in {"messages", "input", "tools"})
    bound = answer_bound(request)
    return max(1, text // 4), DEFAULT_OUTPUT_TOKENS if bound is None else bound


def answer_bound(request: Request) -> int | None:
    """The most tokens that the answer may hold, as the request says; None: it does not say."""
    if request.operation == "embeddings":
        return 0
    bound = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    return bound if isinstance(bound, int) and bound > 0 else None


def estimated_cost_usd(model: Model, request: Request) -> float | None:
    """The price of the call if it uses what `estimated_tokens` says; None when the price is unknown."""
    prompt_tokens, answer_tokens = estimated_tokens(request)
    return cost_usd(model, prompt_tokens, answer_tokens)


def cost_usd(model: Model, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
    """What the provider charges for these tokens; None when price or tokens are unknown."""
    prices = (model.input_usd_per_mtok, model.output_usd_per_mtok)
    if prices[0] is None or prices[1] is None or prompt_tokens is None or completion_tokens is None:
        return None
    return (prices[0] * prompt_tokens + prices[1] * completion_tokens) / 1e6
