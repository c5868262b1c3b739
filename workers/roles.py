"""The roles of one worker: started together, exchanged by a reload, drained together."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

import httpx

from hub import extra
from topology.fleet import Fleet
from topology.loading import ConfigurationError, recorder_url
from workers.alerts.role import Alerts
from workers.alerts.webhooks import targets_of
from workers.backend import Pool
from workers.calling import ProviderClient
from workers.ending import end_all
from workers.front import Front
from workers.leftovers import Leftovers, queues_of
from workers.undertaker import Undertaker
from workers.worker import Worker

log = logging.getLogger("optimizer.roles")

FRONT: Final = "front"
UNDERTAKER: Final = "undertaker"
RECORDER: Final = "recorder"
ALERTS: Final = "alerts"
BACKEND: Final = "backend"
ALL: Final = "all"
_OF_THE_FLEET: Final = (FRONT, UNDERTAKER, RECORDER, ALERTS)
"""Roles that are about no provider."""


class UnknownRole(ValueError):
    """A role that no worker has; the text lists those there are."""


class Role(Protocol):
    """What a worker can be."""

    async def start(self) -> None:
        """Consumes from now on."""

    async def run(self) -> None:
        """Works until cancelled."""

    async def drain(self) -> None:
        """Takes nothing more, and finishes or hands back what was taken."""


def expand_roles(roles: Sequence[str], fleet: Fleet) -> tuple[str, ...]:
    """The roles with `backend:all` spelled out.

    Raises:
        UnknownRole: One of them is none, or names a provider that is not enabled.
        ConfigurationError: One of them needs libraries that are not installed, or a webhook's URL.
    """
    for role in roles:
        kind, _, provider = role.partition(":")
        is_pool = kind == BACKEND and (provider == ALL or provider in fleet.providers)
        if role not in _OF_THE_FLEET and not is_pool:
            there = ", ".join([*_OF_THE_FLEET, "backend:all", *(f"backend:{n}" for n in fleet.providers)])
            raise UnknownRole(f"role {role!r} is none of: {there}")
    if RECORDER in roles and not extra.is_installed():
        raise ConfigurationError(f"the recorder needs more libraries: {extra.REMEDY}")
    if ALERTS in roles:
        targets_of(fleet.alerts)
    return _roles_under(fleet, roles)


def _roles_under(fleet: Fleet, asked: Sequence[str]) -> tuple[str, ...]:
    """Those of the asked roles that this configuration has work for."""
    expanded: list[str] = []
    for role in asked:
        _, _, provider = role.partition(":")
        if provider == ALL:
            expanded += [f"{BACKEND}:{name}" for name in fleet.providers]
        elif role in _OF_THE_FLEET or provider in fleet.providers:
            expanded.append(role)
    return tuple(dict.fromkeys(expanded))


@dataclass(eq=False)
class _Post:
    """A role that is filled, with what it alone uses."""

    name: str
    role: Role
    closing: AsyncExitStack
    task: "asyncio.Task[None] | None" = field(default=None)


class Roles:
    """Owns the roles and their tasks, also those that were replaced and still have calls running.

    Args:
        worker: What they share.
        asked: The roles as they were asked for: `backend:all` takes in providers that come later.
    """

    def __init__(self, worker: Worker, asked: Sequence[str]) -> None:
        self._worker = worker
        self._asked = tuple(asked)
        self._posts: dict[str, _Post] = {}
        self._leaving: dict[_Post, asyncio.Task[None]] = {}
        self._leftovers = Leftovers(worker)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leftovers.close()
        leaving = list(self._leaving.values())
        await end_all([*(post.task for post in self._posts.values() if post.task), *leaving])
        for post in (*self._posts.values(), *self._leaving):
            await post.closing.aclose()
        self.failed.cancel()

    async def start(self) -> None:
        """Consumes from now on."""
        for name in _roles_under(self._worker.fleet, self._asked):
            await self._fill(name)

    def run(self) -> None:
        """Works from now on. `failed` is done when a role ends by itself, with its error."""
        for post in self._posts.values():
            self._run(post)

    async def exchange(self, fleet: Fleet) -> None:
        """Goes on under another configuration.

        Pools of new providers start. Those whose part of the configuration is another are replaced at
        once: the old one takes nothing more, and its calls end beside the new one, as the leases in
        Redis bound them together. What waits for a provider that is gone goes back to the entrance.
        """
        before, self._worker.fleet = self._worker.fleet, fleet
        wanted = self._worker.roles = _roles_under(fleet, self._asked)
        for name in list(self._posts):
            if name not in wanted or _is_changed(name, before, fleet):
                self._leave(self._posts.pop(name))
        for name in wanted:
            if name not in self._posts:
                self._run(await self._fill(name))
        for callback in self._worker.on_control:
            callback()
        self._leftovers.look_after(self._without_pool(before, fleet))

    async def drain(self) -> None:
        """Takes nothing more, and finishes or hands back what was taken; calls for a bounded time."""
        await self._leftovers.close()
        await end_all([post.task for post in self._posts.values() if post.task])
        await asyncio.gather(*(post.role.drain() for post in (*self._posts.values(), *self._leaving)))

    async def _fill(self, name: str) -> _Post:
        closing = AsyncExitStack()
        post = self._posts[name] = _Post(name, await self._make(name, closing), closing)
        await post.role.start()
        return post

    async def _make(self, name: str, closing: AsyncExitStack) -> Role:
        kind, _, provider_name = name.partition(":")
        if kind == FRONT:
            return Front(self._worker)
        if kind == UNDERTAKER:
            return Undertaker(self._worker)
        if kind == RECORDER:
            return self._recorder(closing)
        if kind == ALERTS:
            return Alerts(self._worker, await closing.enter_async_context(httpx.AsyncClient()))
        provider = self._worker.fleet.providers[provider_name]
        client = await closing.enter_async_context(ProviderClient(provider))
        return Pool(self._worker, provider, client)

    def _recorder(self, closing: AsyncExitStack) -> Role:
        # Its libraries are an extra, and nobody else is to wait for their import.
        from hub.store.ledger import Ledger  # noqa: PLC0415
        from workers.recorder import Recorder  # noqa: PLC0415

        ledger = Ledger(recorder_url(self._worker.fleet))
        closing.callback(ledger.close)
        return Recorder(self._worker, ledger)

    def _run(self, post: _Post) -> None:
        post.task = asyncio.create_task(post.role.run(), name=f"role {post.name}")
        post.task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self.failed.done() or (task.cancelled() and task.cancelling()):
            return
        error = (
            RuntimeError(f"{task.get_name()} was cancelled by nobody")
            if task.cancelled()
            else task.exception()
        )
        if error is not None:
            self.failed.set_exception(error)
        elif task not in self._leaving.values():  # a role works until it is told to stop
            self.failed.set_result(None)

    def _leave(self, post: _Post) -> None:
        task = asyncio.create_task(self._retire(post), name=f"retire {post.name}")
        self._leaving[post] = task
        task.add_done_callback(self._ended)
        task.add_done_callback(lambda _: self._leaving.pop(post, None))

    async def _retire(self, post: _Post) -> None:
        if post.task is not None:
            await end_all([post.task])
        if isinstance(post.role, Pool):
            await post.role.retire()
        await post.closing.aclose()

    def _without_pool(self, before: Fleet, after: Fleet) -> list[str]:
        """The queues that pools of this worker consumed, and that the configuration knows no more."""
        roles = _roles_under(before, self._asked)
        mine = [role.partition(":")[2] for role in roles if role not in _OF_THE_FLEET]
        gone = [queue for name in mine for queue in queues_of(before.providers[name])]
        known = {queue for provider in after.providers.values() for queue in queues_of(provider)}
        return [queue for queue in gone if queue not in known]


def _is_changed(name: str, before: Fleet, after: Fleet) -> bool:
    """Whether a pool was built from something that is another now. The others read all of it as they go."""
    if name in _OF_THE_FLEET:
        return False
    provider = name.partition(":")[2]
    return (before.fleet, before.priorities, before.providers[provider]) != (
        after.fleet,
        after.priorities,
        after.providers[provider],
    )
