"""What events say to be wrong, until an event, a call or an operator shows that it is mended: pure."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from broker.standings import FOR_GOOD
from topology.alerts import About, AlertName, Severity, Trouble
from topology.errors import ErrorType
from topology.events import EventType
from topology.fields import FARTHEST
from topology.fleet import Fleet
from topology.messages import Event
from topology.providers.outcomes import Scope
from workers.alerts.counts import CallCounts
from workers.alerts.rules import clock

HEARD: Final = (
    EventType.CALL_COMPLETED,
    EventType.CALL_FAILED,
    EventType.LIMIT_TIGHTENED,
    EventType.KEY_DISABLED,
    EventType.KEY_RESTORED,
    EventType.CIRCUIT_OPENED,
    EventType.CIRCUIT_CLOSED,
)
"""The events that are listened to."""

_LONG_S: Final = 600.0
"""A provider that refuses for so long speaks of a quota, and not of its pace."""
_NO_FAULT_OF_THE_MODEL: Final = frozenset(
    {
        ErrorType.CANCELLED,
        ErrorType.INVALID_REQUEST,
        ErrorType.CONTEXT_TOO_LONG,
        ErrorType.CONTENT_FILTERED,
    }
)
_OF_ALL: Final = frozenset({Scope.PROVIDER, Scope.ADDRESS})
_OF_A_PART: Final = frozenset({Scope.KEY, Scope.MODEL, Scope.REQUEST})
_LONGEST_WORD: Final = 512


class Heard(BaseModel):
    """Something that an event has said to be wrong.

    Attributes:
        at: When, epoch seconds.
        until: When it is over by itself; None: only once it is mended.
        answered: Whether a call of that part was answered since.
        part: Which part of the provider that is: nothing for the whole, an account, a key or a model of one.
    """

    model_config = ConfigDict(frozen=True)

    trouble: Trouble
    at: float
    until: float | None = None
    answered: bool = False
    part: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, ...]:
        """The part, behind its provider's name."""
        return (self.trouble.about.provider or "", *self.part)


def _encodable(text: str) -> str:
    text.encode()  # half an emoji cannot be written down
    return text


Word = Annotated[str, Field(max_length=_LONGEST_WORD), AfterValidator(_encodable)]


class _Said(BaseModel):
    """The fields that are used of an event: anybody may publish one."""

    model_config = ConfigDict(allow_inf_nan=False)

    provider: Word
    account: Word | None = None
    model: Word | None = None
    key: Word | None = None
    scope: Word | None = None
    code: Word | None = None
    kind: Word | None = None
    error: Word | None = None
    status: int | None = None
    until: float | None = Field(default=None, ge=0, le=FARTHEST)
    latency_s: float | None = Field(default=None, ge=0, le=FARTHEST)


def hear(event: Event, known: Mapping[str, Heard], counts: CallCounts) -> dict[str, Heard | None]:
    """Counts a call, or says what of the known troubles the event changes; None: it is mended."""
    try:
        said = _Said.model_validate(event.model_extra or {})
    except ValidationError:
        return {}
    match event.type:
        case EventType.CALL_COMPLETED:
            counts.answered(event.at, (said.provider, said.model or "?"), said.latency_s or 0.0)
            return dict(_answered(said, event.at, known))
        case EventType.CALL_FAILED if said.error not in _NO_FAULT_OF_THE_MODEL:
            counts.failed(event.at, (said.provider, said.model or "?"))
        case EventType.LIMIT_TIGHTENED if said.until and said.until - event.at >= _LONG_S:
            return _new(_gone(said, event.at))
        case EventType.KEY_DISABLED:
            return _new(_lost(said, event.at))
        case EventType.CIRCUIT_OPENED:
            return _new(_open(said, event.at))
        case EventType.KEY_RESTORED | EventType.CIRCUIT_CLOSED:
            return dict(_mended(said, event, known))
    return {}


def still_wrong(
    heard: Mapping[str, Heard], closed: Mapping[tuple[str, ...], float], fleet: Fleet, now: float
) -> Iterator[str]:
    """Which of the known troubles last.

    Args:
        heard: Those that are known.
        closed: Which places nobody calls for now, and until when.
        fleet: Of whom nothing is known any more, nothing is wrong.
        now: Epoch seconds.
    """
    for id_, one in heard.items():
        over = one.until is not None and now >= one.until
        mended = one.answered and one.place not in closed
        given_up = closed.get(one.place, 0.0) >= FOR_GOOD
        if not (over or mended or given_up) and _is_configured(one.trouble.about, fleet):
            yield id_


def _new(heard: Heard) -> dict[str, Heard | None]:
    return {heard.trouble.id: heard}


def _gone(said: _Said, at: float) -> Heard:
    account = None if said.scope in _OF_ALL else said.account
    model = said.model if said.scope == Scope.MODEL else None
    about = About(provider=said.provider, account=account, model=model, limit="the provider's own")
    code = f" ({said.code})" if said.code else ""
    text = (
        f"{about}: the provider says that the quota is spent{code}; it is tried again at "
        f"{clock(said.until or at)}, and until then requests wait or go elsewhere. To go on sooner: raise "
        f"the plan or pay, then optimizer keys enable {said.provider} {said.account}."
    )
    trouble = Trouble(name=AlertName.QUOTA_GONE, about=about, severity=Severity.CRITICAL, text=text)
    return Heard(trouble=trouble, at=at, until=said.until, part=_part(said.scope, said.account, said.model))


def _lost(said: _Said, at: float) -> Heard:
    about = About(provider=said.provider, account=said.account, key=said.key)
    key = said.key or said.account
    reason = " ".join(str(word) for word in (said.status, said.code) if word)
    text = (
        f"{about}: the provider refuses {key} ({reason or 'no reason given'}). Put a valid key there and "
        f"run: optimizer reload; or take it out: optimizer keys disable {said.provider} {key}."
    )
    trouble = Trouble(name=AlertName.KEY_LOST, about=about, severity=Severity.CRITICAL, text=text)
    return Heard(trouble=trouble, at=at, part=_part(said.scope, said.account, said.key))


def _open(said: _Said, at: float) -> Heard:
    about = About(provider=said.provider, account=said.account, model=said.model)
    reason = " ".join(word for word in (said.kind, said.code) if word)
    text = (
        f"{about}: five calls in a row failed ({reason or 'no reason given'}), so it is left alone and tried "
        "by single calls; requests go to other candidates or wait. Look at the provider's status page; if it "
        f"stays away: optimizer drain {said.provider}."
    )
    trouble = Trouble(name=AlertName.CIRCUIT_OPEN, about=about, severity=Severity.CRITICAL, text=text)
    return Heard(trouble=trouble, at=at, part=_part(said.scope, said.account, said.model))


def _part(scope: str | None, account: str | None, inner: str | None) -> tuple[str, ...]:
    if scope in _OF_ALL or account is None:
        return ()
    return (account, inner) if inner and scope in _OF_A_PART else (account,)


def _answered(said: _Said, at: float, known: Mapping[str, Heard]) -> Iterator[tuple[str, Heard]]:
    for id_, one in known.items():
        if not one.answered and at > one.at and _is_part_of(said, one.trouble.about):
            yield id_, one.model_copy(update={"answered": True})


def _mended(said: _Said, event: Event, known: Mapping[str, Heard]) -> Iterator[tuple[str, None]]:
    """What is open again."""
    place = (said.provider, *_part(said.scope, said.account, said.key or said.model))
    circuit = event.type == EventType.CIRCUIT_CLOSED
    for id_, one in known.items():
        alike = (one.trouble.name is AlertName.CIRCUIT_OPEN) == circuit
        if alike and one.place == place and event.at >= one.at:
            yield id_, None


def _is_part_of(said: _Said, about: About) -> bool:
    """Whether a call was one of what a trouble is about."""
    return (
        about.provider == said.provider
        and about.account in {None, said.account}
        and about.model in {None, said.model}
    )


def _is_configured(about: About, fleet: Fleet) -> bool:
    provider = fleet.providers.get(about.provider or "")
    if provider is None:
        return False
    keys = {account.name: {key.origin for key in account.api_keys} for account in provider.quota_owners}
    if not keys or about.account is None:
        return True
    return about.account in keys and (about.key is None or about.key in keys[about.account])
