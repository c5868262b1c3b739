"""Learning from final errors: what a model said it cannot do, no agent asks of it again for a while."""

import logging
import math
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from broker.flights import StateAway
from broker.lessons import Lesson, Lessons
from topology.events import EventType
from topology.features import Used
from topology.fleet import Provider
from topology.messages import CacheMode, Candidate, ErrorReport, Job, Outcome, Request
from topology.providers.outcomes import Failure, Scope
from workers.events import Clock, Events

log = logging.getLogger("optimizer.learning")

_TRY_EVERY_S: Final = 60.0
"""Past its time, a lesson lets a request through this often, at each front, until one call has decided."""


class Learning:
    """The lessons of the whole fleet, with a copy in this worker's hands: asking it costs no round trip."""

    def __init__(self, lessons: Lessons, clock: Clock, events: Events) -> None:
        self._lessons = lessons
        self._clock = clock
        self._events = events
        self._known: dict[tuple[str, str], list[Lesson]] = {}
        self._tried: dict[str, float] = {}

    async def look(self) -> None:
        """Reads what the fleet knows; the copy stays as it is while Redis is away."""
        with suppress(StateAway):
            self._keep(await self._lessons.read())

    def around(
        self, request: Request, route: tuple[Candidate, ...]
    ) -> tuple[tuple[Candidate, ...], Outcome | None]:
        """The candidates that are not known to lack what the request uses.

        Where none is left, all of them and the error that was learned; with `cache="refresh"` without it, so
        that a caller can have it tried again.
        """
        if not self._known or not any(lessons := [self._of(candidate) for candidate in route]):
            return route, None
        used = Used(request)
        against = [self._against(used, known) for known in lessons]
        left = tuple(c for c, lesson in zip(route, against, strict=True) if lesson is None)
        if left or request.cache is CacheMode.REFRESH:
            return left or route, None
        return route, _refusal([lesson for lesson in against if lesson is not None])

    async def learn(self, job: Job, provider: Provider, failure: Failure, ttl_s: float) -> bool:
        """Remembers for `ttl_s` seconds what a final error taught.

        Returns whether it was plainly about features of the model that this request uses.
        """
        if failure.scope is Scope.MODEL and len(provider.quota_owners) > 1:
            return False  # of one account's model: another account may have it
        features = Used(job.request).told(failure.features)
        for feature in features if ttl_s else ():
            await self._remember(job, feature, failure, ttl_s)
        return bool(features)

    async def succeeded(self, job: Job) -> None:
        """Forgets what a call that was answered has disproved."""
        used = Used(job.request)
        wrong = [lesson.name for lesson in self._of(job.candidate) if lesson.feature in used]
        if wrong:
            log.info("forgotten: it works", extra={"lessons": wrong})
            with suppress(StateAway):
                await self._lessons.forget(wrong)
                await self.look()

    async def _remember(self, job: Job, feature: str, failure: Failure, ttl_s: float) -> None:
        now, candidate = self._clock.now(), job.candidate
        lesson = Lesson(
            provider=candidate.provider,
            model=candidate.model,
            feature=feature,
            error=failure.error_type,
            status=failure.status,
            said=failure.message.partition("\n")[0],
            times=1,
            first_at=now,
            last_at=now,
            until=now + ttl_s,
        )
        with suppress(StateAway):  # then the next one who meets it teaches the fleet
            lesson = await self._lessons.learn(lesson)
        others = [one for one in self._of(candidate) if one.feature != feature]
        self._known[candidate.provider, candidate.model] = [*others, lesson]
        self._events.emit(
            EventType.ERROR_LEARNED,
            agent=job.waiter.agent,
            request_id=job.waiter.id,
            provider=lesson.provider,
            model=lesson.model,
            feature=feature,
            error=lesson.error.value,
            status=lesson.status,
            code=failure.code,
            times=lesson.times,
            until=lesson.until,
        )

    def _keep(self, lessons: Iterable[Lesson]) -> None:
        self._known = {}
        for lesson in lessons:
            self._known.setdefault((lesson.provider, lesson.model), []).append(lesson)
        since = self._clock.now() - _TRY_EVERY_S
        self._tried = {name: at for name, at in self._tried.items() if at > since}

    def _of(self, candidate: Candidate) -> Sequence[Lesson]:
        return self._known.get((candidate.provider, candidate.model), ())

    def _against(self, used: Used, lessons: Sequence[Lesson]) -> Lesson | None:
        """What speaks against asking the candidate of which this is known."""
        for lesson in lessons:
            if lesson.feature in used and not self._may_try(lesson):
                return lesson
        return None

    def _may_try(self, lesson: Lesson) -> bool:
        now = self._clock.now()
        if now < max(lesson.until, self._tried.get(lesson.name, -math.inf) + _TRY_EVERY_S):
            return False
        self._tried[lesson.name] = now
        return True


def _refusal(lessons: Sequence[Lesson]) -> Outcome:
    """The error that was learned, for one who would meet it, too."""
    lesson, others = lessons[0], len(lessons) - 1
    also = f", and the {others} others of its route lack something of this request" if others else ""
    report = ErrorReport(
        type=lesson.error,
        message=f"{lesson.feature}: {lesson.provider}/{lesson.model} lacks it{also}; learned at "
        f'{_instant(lesson.first_at)} from its error "{lesson.said}". It is tried again after '
        f'{_instant(lesson.until)}, or now with cache="refresh"; an operator forgets it by '
        f"`optimizer report errors --forget {shlex.join(lesson.name.rsplit(' ', 1))}`",
        provider_status=lesson.status,
    )
    return Outcome(status="error", provider=lesson.provider, model=lesson.model, error=report)


def _instant(instant: float) -> str:
    return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC"
