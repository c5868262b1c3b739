"""The real scripts, run by Lua 5.1 (Redis's own version) against the stand-in."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack
from lupa.lua51 import LuaRuntime, lua_type

from broker.scripting import _SCRIPTS, _source, pack
from tests.model.standin import Frozen, Store

PREFIX: Final = "o1:"


class Patch(Exception):
    """The text to be replaced is not in the scripts exactly once: the scripts have changed."""


def sources(patches: Mapping[str, str] | None = None) -> dict[str, str]:
    """The scripts as Redis gets them, with some of their text replaced."""
    texts = {name: _source(name) for name in _SCRIPTS}
    for old, new in (patches or {}).items():
        holding = [name for name, text in texts.items() if text.count(old) == 1]
        if len(holding) not in {1, len(texts)} or any(t.count(old) > 1 for t in texts.values()):
            raise Patch(f"{old!r} is in {holding}, not in one script or in the prelude of all")
        for name in holding:
            texts[name] = texts[name].replace(old, new)
    return texts


class LuaScripts:
    """Stands where `broker.scripting.Scripts` does. `frozen` and `now` are set before each run.

    Args:
        texts: The scripts' sources, by name.
        overrides: Arguments that are replaced wherever a script takes them.
    """

    def __init__(self, texts: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> None:
        self._overrides = overrides or {}
        self.frozen: Frozen = ()
        self.now = 0.0
        self._store = Store((), 0.0)
        self._lua: Any = LuaRuntime(encoding="latin-1", register_eval=False)
        environment = self._lua.globals()
        environment.redis = self._lua.table_from({"call": self._call})
        environment.cmsgpack = self._lua.table_from({"pack": self._pack, "unpack": self._unpack})
        self._functions = {
            name: self._lua.execute(f"return function(KEYS, ARGV)\n{_without_flags(text)}\nend")
            for name, text in texts.items()
        }

    def keys(self, fingerprint: str) -> tuple[str, str, str]:
        """As `Scripts.keys`."""
        return tuple(f"{PREFIX}{part}:{fingerprint}" for part in ("flight", "waiters", "served"))  # type: ignore[return-value]

    async def run(self, script: str, fingerprint: str, **arguments: Any) -> list[bytes]:
        """As `Scripts.run`."""
        replaced = {name: value for name, value in self._overrides.items() if name in arguments}
        return self.evaluate(script, fingerprint, pack({**arguments, **replaced}))

    async def run_all(self, script: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[bytes]]:
        """As `Scripts.run_all`."""
        return [await self.run(script, fingerprint, **arguments) for fingerprint, arguments in calls]

    def evaluate(self, script: str, fingerprint: str, packed: bytes) -> list[bytes]:
        """One script on what is held; it holds what came of it afterwards."""
        self._store = Store(self.frozen, self.now)
        keys = self._lua.table_from(self.keys(fingerprint))
        answer = self._functions[script](keys, self._lua.table_from([packed.decode("latin-1")]))
        self.frozen = self._store.frozen()
        return [text.encode("latin-1") for text in answer.values()]

    def _call(self, *arguments: Any) -> Any:
        answer = self._store.call(*arguments)
        return self._lua.table_from(answer) if isinstance(answer, list) else answer

    def _unpack(self, packed: str) -> Any:
        return self._to_lua(msgpack.unpackb(packed.encode("latin-1"), raw=True))

    def _pack(self, value: Any) -> str:
        return pack(_to_python(value)).decode("latin-1")

    def _to_lua(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, list):
            return self._lua.table_from([self._to_lua(v) for v in value])
        if isinstance(value, dict):
            return self._lua.table_from({self._to_lua(k): self._to_lua(v) for k, v in value.items()})
        return value


def _without_flags(text: str) -> str:
    """The first line may be Redis's own, `#!lua flags=...`."""
    return text.partition("\n")[2] if text.startswith("#!") else text


def _to_python(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("latin-1")
    if lua_type(value) != "table":
        return value
    pairs = {k: _to_python(v) for k, v in value.items()}
    if list(pairs) == list(range(1, len(pairs) + 1)):
        return list(pairs.values())
    return {_to_python(k): v for k, v in pairs.items()}
