"""Kinds that go past the entrance: to the queues, to `optimizer.jobs`, the retry tiers and the events."""

import math
from typing import Any

from tests.fuzz.malformed import (
    NOTHING,
    SERVED,
    End,
    Maker,
    Malformed,
    after_death,
    answered,
    kept,
    kind,
    pack,
)
from topology import names
from topology.names import RetryTier

JOBS_QUEUE = "jobs.simulated.any.normal"
REQUESTS_QUEUE = "requests.normal"


def job(m: Maker, says: str, **changes: Any) -> Malformed:
    return m.send(m.job(**changes), kept(says), exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def request_past_its_exchange(m: Maker) -> Malformed:
    return m.send(m.request(), kept("routing key: priority"), exchange="", key=REQUESTS_QUEUE)


@kind()
def job_past_its_exchange(m: Maker) -> Malformed:
    return m.send(m.job(), kept("exchange"), exchange="", key=JOBS_QUEUE)


@kind()
def job_that_is_noise(m: Maker) -> Malformed:
    body = m.id.encode() + m.rng.randbytes(m.rng.randint(1, 300))
    return m.send(body, kept("job: "), exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def job_that_is_a_request(m: Maker) -> Malformed:
    return m.send(m.request(), kept("job: "), exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def job_without_a_route(m: Maker) -> Malformed:
    route: object = m.rng.choice([[], None, "simulated", [5], [{}], [{"provider": "simulated"}]])
    return job(m, "job: route", route=route)


@kind()
def job_with_an_impossible_position(m: Maker) -> Malformed:
    return job(m, "job: position", position=m.rng.choice([-1, "first", 1.5, None, -(2**63), []]))


@kind()
def job_with_a_huge_position(m: Maker) -> Malformed:
    return m.send(m.job(position=2**64 - 1), SERVED, exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def job_with_an_odd_fingerprint(m: Maker) -> Malformed:
    odd = m.rng.choice(["", "x" * 100_000, None, 5, "\ud83d", "a b", "*", "\0", b"\xff", "ö"])
    return job(m, "job: fingerprint", fingerprint=odd)


@kind(3)
def job_with_an_odd_waiter(m: Maker) -> Malformed:
    field, odd = m.rng.choice(
        [
            ("deadline", math.nan),
            ("deadline", math.inf),
            ("deadline", 1e300),
            ("deadline", None),
            ("deadline", -1),
            ("reply_to", "r" * 300),
            ("reply_to", "ö" * 200),
            ("reply_to", 5),
            ("id", "x" * 300),
            ("id", ""),
            ("id", None),
            ("agent", "Tester"),
            ("agent", ""),
            ("agent", "x" * 300),
            ("priority", "urgent"),
            ("priority", 0),
            ("queued_at", "now"),
            ("queued_at", math.nan),
        ]
    )
    return job(m, f"job: waiter.{field}", waiter=m.waiter(**{field: odd}))


@kind()
def job_with_an_odd_request(m: Maker) -> Malformed:
    odd: dict[str, Any] = m.rng.choice(
        [{"params": {"metadata": b"x"}}, {"params": {"user": math.nan}}, {"id": ""}, {"cache_ttl_s": 1e300}]
    )
    return job(m, "job: request.", request=m.request(**odd))


@kind()
def job_with_an_odd_candidate(m: Maker) -> Malformed:
    odd = m.rng.choice(
        [
            {"provider": "x" * 300, "model": "m"},
            {"provider": "a.b", "model": "m"},
            {"provider": "simulated", "model": "m" * 5000},
            {"provider": "\0", "model": ""},
        ]
    )
    return job(m, "job: route", route=[odd])


@kind(0.3)
def job_for_places_that_are_gone(m: Maker) -> Malformed:
    gone = {"provider": "gone", "model": "m"}
    retired = {"provider": "simulated", "model": "retired"}
    also_retired = {"provider": "simulated", "model": "retired-too"}
    route = m.rng.choice([[gone], [retired], [gone, gone], [retired, also_retired], [retired, gone]])
    # The front is asked again: the request's model is `auto`, and there is another.
    return m.send(m.job(route=route), SERVED, exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def job_whose_first_place_is_gone(m: Maker) -> Malformed:
    route = [
        {"provider": "gone", "model": "m"},
        {"provider": "simulated", "model": "retired"},
        {"provider": "simulated", "model": "sim-small"},
    ]
    return m.send(m.job(route=route), SERVED, exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def job_whose_waiter_has_gone(m: Maker) -> Malformed:
    body = m.job(waiter=m.waiter(deadline=m.now - 5))
    return m.send(body, NOTHING, exchange=names.JOBS, key=JOBS_QUEUE)


@kind()
def job_for_a_queue_that_never_was(m: Maker) -> Malformed:
    key = f"jobs.{m.rng.randrange(99)}.any.normal"
    return m.send(m.job(), after_death(End.SERVED), exchange=names.JOBS, key=key)


@kind()
def job_that_expires_in_its_queue(m: Maker) -> Malformed:
    body = m.job(waiter=m.waiter(deadline=m.now + 25))  # time for a short retry tier, and no longer one
    told: dict[str, Any] = {"exchange": names.JOBS, "key": JOBS_QUEUE, "expiration": m.rng.choice(["0", "1"])}
    return m.send(body, after_death(End.SERVED), **told)


@kind()
def envelope_that_expires_in_its_queue(m: Maker) -> Malformed:
    told: dict[str, Any] = {
        "exchange": names.JOBS,
        "key": REQUESTS_QUEUE,
        "expiration": m.rng.choice(["0", "1"]),
    }
    return m.send(envelope(m, deadline=m.now + 25), after_death(End.SERVED), **told)


def envelope(m: Maker, **waiter: Any) -> dict[str, Any]:
    return {"v": 1, "request": m.request(), "waiter": m.waiter(**waiter)}


@kind()
def envelope_that_is_noise(m: Maker) -> Malformed:
    body = m.rng.choice([m.id.encode(), pack(m.request()), pack({"v": 1, "waiter": m.waiter()})])
    return m.send(body, kept("envelope: "), exchange=names.JOBS, key=REQUESTS_QUEUE)


@kind()
def envelope_with_an_odd_waiter(m: Maker) -> Malformed:
    odd: dict[str, Any] = m.rng.choice(
        [{"reply_to": "r" * 300}, {"id": "ö" * 200}, {"deadline": 1e300}, {"agent": "A B"}]
    )
    return m.send(envelope(m, **odd), kept("envelope: waiter."), exchange=names.JOBS, key=REQUESTS_QUEUE)


@kind()
def envelope_past_its_deadline(m: Maker) -> Malformed:
    body = envelope(m, deadline=m.now - 5)
    return m.send(body, answered("deadline_exceeded"), exchange=names.JOBS, key=REQUESTS_QUEUE)


@kind()
def envelope_for_a_model_that_nobody_has(m: Maker) -> Malformed:
    body = {"v": 1, "request": m.request(model="nobody/x"), "waiter": m.waiter()}
    return m.send(body, answered("no_model_available"), exchange=names.JOBS, key=REQUESTS_QUEUE)


@kind()
def envelope_by_way_of_a_retry_tier(m: Maker) -> Malformed:
    return m.send(envelope(m), SERVED, exchange=RetryTier.ONE_SECOND.exchange, key=REQUESTS_QUEUE)


@kind()
def noise_by_way_of_a_retry_tier(m: Maker) -> Malformed:
    return m.send(
        m.id.encode(),
        kept(": "),
        exchange=RetryTier.ONE_SECOND.exchange,
        key=m.rng.choice([REQUESTS_QUEUE, JOBS_QUEUE]),
    )


@kind()
def retry_of_nothing(m: Maker) -> Malformed:
    key = m.rng.choice(["", "nowhere", "reply.tester.x"])
    return m.send(
        m.id.encode(), kept("there is no such queue"), exchange=RetryTier.ONE_SECOND.exchange, key=key
    )


@kind()
def straight_to_the_dead(m: Maker) -> Malformed:
    return m.send(m.request(), kept("optimizer.dead itself"), exchange=names.DEAD, key="")


@kind(3)
def straight_to_the_dead_with_a_history(m: Maker) -> Malformed:
    odd: object = m.rng.choice(
        [
            [], "x", 5, [5], [[]], [{}], {"queue": JOBS_QUEUE}, [{"queue": JOBS_QUEUE}],
            [{"queue": 5, "reason": "expired", "exchange": names.JOBS}],
            [{"queue": "", "reason": "expired", "exchange": names.JOBS, "count": 2**40}],
            [{"queue": "nowhere", "reason": "x" * 5000, "exchange": 5, "count": "many", "time": "now"}],
            [{"queue": JOBS_QUEUE, "reason": "delivery_limit", "exchange": names.REQUESTS}],
            [{"queue": JOBS_QUEUE, "reason": "delivery_limit", "exchange": names.JOBS}],
        ]
    )  # fmt: skip
    headers = {"x-death": odd, "x-delivery-count": m.rng.choice([0, -1, "x", 2**60])}
    key = m.rng.choice(["", "normal.tester", "nowhere"])
    return m.send(m.job(), kept(""), exchange=names.DEAD, key=key, headers=headers)


@kind()
def odd_word_to_all_workers(m: Maker) -> Malformed:
    odd: dict[str, Any] = m.rng.choice(
        [
            {"action": "explode"},
            {"action": 5},
            {"action": "pause"},
            {"action": "renew"},
            {"action": None},
            {"action": "pause", "provider": 5},
            {"action": "pause", "provider": "gone"},
            {"action": "renew", "flight": "x" * 5000},
            {"action": "renew", "flight": b"\xff"},
            {"id": ""},
        ]
    )
    body = m.rng.choice([pack({"v": 1, "id": m.id, "action": "renew", **odd}), m.id.encode(), b""])
    return m.send(body, NOTHING, exchange=names.CONTROL, key="")


@kind(3)
def odd_heartbeat(m: Maker) -> Malformed:
    fields: dict[str, Any] = m.rng.choice(
        [
            {"providers": 5},
            {"providers": "simulated"},
            {"providers": ["groq"]},
            {"roles": 5},
            {"worker": [1]},
            {"worker": None, "providers": {1: 2}},
            {"leaving": "yes"},
            {"pid": "x"},
            {"at": "now"},
            {"id": None},
            {"worker": "x" * 5000},
            {"providers": {"simulated": 5}},
            {"providers": {"simulated": {"closed": 5}}},
            {"providers": {"simulated": {"closed": {"any": "x"}, "opens_at": {"any": "soon"}}}},
            {"providers": {"simulated": {"answers": {"sim-small": [1, -5.0, float("nan")]}}}},
            {"providers": {"simulated": {"answers": {"sim-small": [True]}}}},
            {"worker": ...},
            {"host": b"\xff"},
        ]
    )
    event = {"v": 1, "id": m.id, "type": "optimizer.worker.health", "at": m.now, "worker": "odd", **fields}
    event = {k: v for k, v in event.items() if v is not ...}
    body = m.rng.choice([pack(event), pack(event), m.id.encode()])
    return m.send(body, NOTHING, exchange=names.EVENTS, key="optimizer.worker.health")
