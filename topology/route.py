"""The static route: where a request can be answered, in order, before anything has been learned."""

from collections.abc import Iterable
from typing import Final

from topology.errors import ErrorType, Refused
from topology.estimates import estimated_cost_usd
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
