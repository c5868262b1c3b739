"""The points at which a worker can be told to die or to freeze.

A point lies between two steps that the protocol keeps apart: what was done before it is done, and nothing
of what follows has begun. Its first word is the role. What was acknowledged before it has left the process.
"""

from collections.abc import Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "front.before_admit": "the request is in hand, Redis knows nothing of it",
    "front.after_admit": "admit has answered, nothing is published",
    "front.before_publish": "the job is about to be published, not a byte of it has left",
    "front.after_publish": "the job was written out, no confirm has been seen",
    "front.after_confirm": "the job is confirmed, the request is not acknowledged",
    "front.before_reply": "the answer is at hand, the reply is not sent",
    "front.after_reply": "the reply is confirmed, its waiter not settled",
    "front.after_settle": "the waiter is settled, the request not acknowledged",
    "front.parked": "the copy for a retry tier is confirmed, the request not acknowledged",
    "backend.before_claim": "the job is in hand, nothing is claimed",
    "backend.after_claim": "the claim is granted, the call is not in the books",
    "backend.after_started": "the call is in the books, not a byte has left for the provider",
    "backend.in_call": "the request was written out, the provider has not answered",
    "backend.after_call": "the answer is in hand, nothing is committed",
    "backend.after_commit": "the outcome is stored, nobody has been told",
    "backend.after_event": "the learning event is confirmed, no reply is sent",
    "backend.before_reply": "the events are confirmed, not a byte of the reply has left",
    "backend.after_replies": "the replies are confirmed, their waiters not settled",
    "backend.after_settle": "the waiters are settled, the job not acknowledged",
    "backend.after_release": "the claim is given up, the job is where it was",
    "backend.parked": "the copy for a retry tier is confirmed, the job not acknowledged",
    "backend.handed_on": "the copy for another candidate is confirmed, the job not acknowledged",
    "undertaker.before_claim": "the dead message is in hand, nothing is asked",
    "undertaker.after_claim": "what is known of the flight is known, nothing was done about it",
    "undertaker.after_commit": "the error is stored, nobody has been told",
    "undertaker.after_replies": "the replies are confirmed, their waiters not settled",
    "undertaker.after_settle": "the waiters are settled, the message not acknowledged",
    "undertaker.parked": "the copy for a retry tier is confirmed, the message not acknowledged",
    "undertaker.kept": "the copy for people is confirmed, the message not acknowledged",
    "recorder.before_insert": "the events are in hand, the database has none of them",
    "recorder.after_insert": "the events are in the database, none is acknowledged",
}


def unknown(point: str) -> str:
    """The error for a point that there is none of."""
    return f"{point!r} is none of: {', '.join(POINTS)}"
