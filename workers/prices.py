"""What calls cost. The one door to genai-prices; its data comes with the package, and nothing is fetched.

A price in `fleet.toml` is what is charged: who writes it has read the contract. Else genai-prices is asked,
by the provider's address and the model: it knows cached tokens, long prompts, hours of the day, service
tiers, and from which day a price holds. What it does not know costs what the catalogue says. What neither
knows is not known, which is never zero.
"""

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from topology.estimates import cost_usd
from topology.fleet import Fleet, Model, Provider
from topology.messages import Usage
from topology.providers.outcomes import Completion

if TYPE_CHECKING:
    from genai_prices import Usage as Counts
    from genai_prices.types import PriceCalculation

_FLAVORS: Final = ("chat", "default")
"""By which of its names genai-prices may read an answer in OpenAI's form."""
_SAMPLE: Final = 1000
"""Tokens whose price stands for all: few enough for the first tier."""


class Prices:
    """The prices of one provider's models."""

    def __init__(self, provider: Provider) -> None:
        self._base_url = provider.base_url
        if provider.any_model or not all(_is_settled(model) for model in provider.models):
            _library()  # it takes half a second, which no call is to wait for

    def cost_usd(self, model: Model, completion: Completion) -> float | None:
        """What the provider charges for this answer; None when price or tokens are unknown."""
        usage = completion.usage
        if not _is_settled(model):
            listed = _listed_usd(self._base_url, model.id, completion)
            if listed is not None:
                return listed
        return cost_usd(model, usage.prompt_tokens, usage.completion_tokens)


def with_known_prices(fleet: Fleet) -> Fleet:
    """The fleet, with a price for each model that states none and that genai-prices knows.

    Routes are ordered and limits in USD reserved by it. It is that of short prompts, at this moment.
    """
    return fleet.model_copy(
        update={"providers": {name: _with_prices(one) for name, one in fleet.providers.items()}}
    )


def _with_prices(provider: Provider) -> Provider:
    models = tuple(_with_price(provider.base_url, model) for model in provider.models)
    return provider if models == provider.models else provider.model_copy(update={"models": models})


def _with_price(base_url: str, model: Model) -> Model:
    if model.price is not None:
        return model
    only_in, both = (
        _listed_usd(base_url, model.id, _answer(prompt_tokens=_SAMPLE, completion_tokens=tokens))
        for tokens in (0, _SAMPLE)
    )
    if only_in is None:
        return model
    per_mtok = 1e6 / _SAMPLE
    out = None if both is None else round((both - only_in) * per_mtok, 6)
    embeds = model.tasks == ("embedding",)
    prices = {
        "input_usd_per_mtok": round(only_in * per_mtok, 6),
        "output_usd_per_mtok": 0.0 if embeds else out,
    }
    return model.model_copy(update={**prices, "fallback_price": True})


def _answer(**tokens: int) -> Completion:
    return Completion(body={}, usage=Usage(**tokens), model=None)


def _is_settled(model: Model) -> bool:
    return model.price is not None and not model.fallback_price


@cache
def _library() -> ModuleType:
    # With its data it takes half a second and 70 MB, which only those need who price.
    import genai_prices  # noqa: PLC0415
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415

    get_snapshot()
    return genai_prices


def _listed_usd(base_url: str, model: str, completion: Completion) -> float | None:
    """By genai-prices; None where it does not know the address, the model, or one of the prices needed."""
    if completion.usage.prompt_tokens is None:
        return None
    tier = completion.body.get("service_tier")
    context = {"service_tier": tier} if isinstance(tier, str) else None
    for usage in _readings(base_url, completion):
        try:
            found: PriceCalculation = _library().calc_price(
                usage, model, provider_api_url=base_url, price_context=context
            )
        except LookupError:
            return None
        except (ValueError, ArithmeticError):  # such as more cached tokens than there are
            continue
        return float(found.total_price) if _is_whole(found, usage) else None
    return None


def _is_whole(found: "PriceCalculation", usage: "Counts") -> bool:
    """Whether it has a price for all that was used: genai-prices counts what has none as free."""
    prices = found.model_price
    return prices.input_mtok is not None and (prices.output_mtok is not None or not usage.output_tokens)


def _readings(base_url: str, completion: Completion) -> "list[Counts]":
    """The usage with its details, as far as genai-prices can read this provider's; then the bare counts."""
    counts, library = completion.usage, _library()
    bare = library.Usage(input_tokens=counts.prompt_tokens, output_tokens=counts.completion_tokens or 0)
    said: dict[str, Any] = {"usage": completion.body.get("usage")}
    for flavor in _FLAVORS:
        try:
            extracted = library.extract_usage(said, provider_api_url=base_url, api_flavor=flavor)
        except (LookupError, ValueError, ArithmeticError):
            continue
        return [extracted.usage, bare]
    return [bare]
