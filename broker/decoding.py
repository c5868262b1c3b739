"""Reading what the scripts answer."""

from collections.abc import Sequence
from typing import Final

import msgpack

from broker.answers import (
    Admitted,
    Attended,
    Busy,
    CalledOff,
    Cancelled,
    Claimed,
    Committed,
    Done,
    Doubts,
    Expired,
    Hit,
    Idle,
    Joined,
    Late,
    Later,
    Lead,
    Living,
    NotHedged,
    Over,
    Own,
    Remembered,
    Run,
    Spared,
    Spent,
    Spot,
    Stale,
    Stored,
    Use,
    Wait,
)
from topology.messages import Outcome, Waiter

_FAILS: Final = "|fails"


def admitted(answer: list[bytes]) -> Admitted:
    """Reads what `admit.lua` answered."""
    match answer:
        case [b"hit", why, outcome, payer]:
            kept = Outcome.from_bytes(outcome) if outcome else None
            return Hit(why.decode(), kept, payer.decode())  # type: ignore[arg-type]
        case [b"joined"]:
            return Joined()
        case [b"lead", leads, side, turn]:
            return Lead(int(leads), Spot(int(side), float(turn)))
        case [b"wait", until, booked, limit]:
            return Wait(float(until), booked == b"1", limit.decode())
        case _:
            raise AssertionError(f"admit.lua answered {answer[:1]}")


def claimed(answer: list[bytes]) -> Claimed:
    """Reads what `claim.lua` answered."""
    match answer:
        case [b"expired", events, doubts]:
            return Expired(events, _doubts(doubts))
        case [b"done", outcome, payer, events, *waiters]:
            return Done(Outcome.from_bytes(outcome), payer.decode(), events, _waiters(waiters))
        case [b"own", token]:
            return Own(token.decode())
        case [b"busy", until]:
            return Busy(float(until))
        case [b"spent", spends, started, doubts]:
            return Spent(int(spends), float(started), _doubts(doubts))
        case [b"late" | b"over" | b"spared" | b"later", *_]:
            return _refused(answer)
        case [b"run", account, key, started, attempt, latest, doubts, *tried]:
            return Run(
                account.decode(),
                int(key),
                float(started),
                int(attempt),
                float(latest),
                _doubts(doubts),
                tuple(key.decode().removesuffix(_FAILS) for key in tried),
                tuple(key.decode().removesuffix(_FAILS) for key in tried if key.endswith(_FAILS.encode())),
            )
        case _:
            raise AssertionError(f"claim.lua answered {answer[:1]}")


def hedged(answer: list[bytes]) -> Run | NotHedged:
    """Reads what `hedge.lua` answered."""
    match answer:
        case [b"no", why]:
            return NotHedged(why.decode())
        case _:
            run = claimed(answer)
            assert isinstance(run, Run), "it never waits"  # noqa: S101 - narrows
            return run


def _refused(answer: list[bytes]) -> Late | Over | Spared | Later:
    match answer:
        case [b"late", until, limit, started, doubts]:
            return Late(float(until), limit.decode(), float(started), _doubts(doubts))
        case [b"over", until, limit]:
            return Over(float(until), limit.decode())
        case [b"spared", until, again, failed]:
            return Spared(float(until), frozenset(failed.decode().split()), again == b"1")
        case [_, until, limit, *waiters]:
            return Later(float(until), limit.decode(), _waiters(waiters))
        case _:
            raise AssertionError(f"claim.lua answered {answer[:1]}")


def attended(answer: list[bytes]) -> Attended:
    """Reads what `claim.lua` answered to a worker that never calls."""
    match answer:
        case [b"idle", spends, park_s]:
            return Idle(int(spends), float(park_s))
        case _:
            ended = claimed(answer)
            assert not isinstance(ended, (Run, Late, Over, Spared, Later)), "nothing is granted to it"  # noqa: S101 - narrows
            return ended


def committed(answer: list[bytes]) -> Committed:
    """Reads what `commit.lua` answered."""
    match answer:
        case [b"stored" | b"duplicate" as verdict, broke, payer, events, outcome, *waiters]:
            return Stored(
                Outcome.from_bytes(outcome),
                payer.decode(),
                events,
                _waiters(waiters),
                duplicate=verdict == b"duplicate",
                broke=broke == b"1",
            )
        case [b"stale"]:
            return Stale()
        case [b"living"]:
            return Living()
        case _:
            raise AssertionError(f"commit.lua answered {answer[:1]}")


def cancelled(answer: list[bytes]) -> Cancelled:
    """Reads what `cancel.lua` answered."""
    match answer:
        case [b"called_off", fingerprint, waiter, worker]:
            return CalledOff(fingerprint.decode(), Waiter.from_bytes(waiter), worker.decode() or None)
        case [b"remembered"]:
            return Remembered()
        case _:
            raise AssertionError(f"cancel.lua answered {answer[:1]}")


def _waiters(packed: Sequence[bytes]) -> tuple[Waiter, ...]:
    return tuple(Waiter.from_bytes(blob) for blob in packed)


def _doubts(packed: bytes) -> Doubts:
    unpacker = msgpack.Unpacker()
    unpacker.feed(packed)
    return tuple(unpacker)


def uses(answer: Sequence[bytes]) -> list[Use]:
    """Reads what `left.lua` answered."""
    numbers = [float(number) for number in answer]
    return [
        Use(used, most, back_at or None)
        for used, most, back_at in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    ]
