"""The SDKs, as `producer_sdk.core` decides, and what they check of every reply."""

from collections.abc import Iterator

from producer_sdk.core import FIRST_SILENCE_S, LONGEST_SILENCE_S
from tests.model.flight import Who
from tests.model.promises import check_late, check_told
from tests.model.world import (
    PROBE,
    Message,
    Model,
    State,
    added,
    client_of,
    spend,
    with_client,
)

Steps = Iterator[tuple[str, State]]

CLOSED = frozenset({"answered", "late", "gone"})


def steps(model: Model, state: State) -> Steps:
    """What clients may do now."""
    for index, client in enumerate(state.clients):
        if client.phase == "unsent" and client.id != PROBE:
            yield f"{client.id} is published and confirmed", begin(model, state, index)
        elif client.phase == "pending" and not model.flight.asks[client.id].durable:
            if state.left.resends:
                again = state._replace(requests=added(state.requests, Message("ask", client.who)))
                yield f"{client.id}'s client reconnects and sends it again", spend(again, "resends")
            if state.left.cancels and client.id not in model.scenario.must:
                gone = with_client(state, index, client._replace(phase="gone"))
                gone = gone._replace(requests=added(gone.requests, Message("cancel", client.who)))
                yield f"{client.id}'s caller calls it off", spend(gone, "cancels")


def begin(model: Model, state: State, index: int) -> State:
    """Publishes for the first time."""
    client = state.clients[index]
    client = client._replace(
        phase="pending",
        deadline=state.now + model.flight.asks[client.id].timeout_s,
        send_again_at=state.now + FIRST_SILENCE_S,
        silence_s=FIRST_SILENCE_S * 2,
        old=() if model.flight.asks[client.id].max_age_s else state.ledger.stored,
    )
    sent = with_client(state, index, client)
    return sent._replace(requests=added(sent.requests, Message("ask", client.who)))


def wake(model: Model, state: State) -> State:
    """What has become due: timers that end a request, and silence that has lasted too long."""
    for index, client in enumerate(state.clients):
        if client.phase != "pending":
            continue
        if client.deadline <= state.now:
            check_late(model, client.id)
            state = with_client(state, index, client._replace(phase="late", send_again_at=0.0, silence_s=0.0))
        elif client.send_again_at <= state.now and not model.flight.asks[client.id].durable:
            again = client._replace(
                send_again_at=state.now + client.silence_s,
                silence_s=min(client.silence_s * 2, LONGEST_SILENCE_S),
            )
            state = with_client(state, index, again)
            state = state._replace(requests=added(state.requests, Message("ask", client.who)))
    return state


def receive(model: Model, state: State, who: Who, told: str) -> State:
    """A reply arrives. What nobody waits for is dropped."""
    index, client = client_of(state, who.id)
    if client.phase != "pending":
        return state
    check_told(model, state, who, told)
    closed = client._replace(phase="answered", send_again_at=0.0, silence_s=0.0, old=())
    return with_client(state, index, closed)
