"""The books of a run: what was sent, what became of it, and what is wrong with that."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.fuzz.malformed import End, Malformed
from topology.messages import Reply
from topology.wire import MAX_MESSAGE_BYTES

_MOST_WRONGS = 50


@dataclass
class Books:
    """Every message that was sent has exactly one end, and a right one; else there is a line in `wrongs`."""

    pending: dict[str, Malformed] = field(default_factory=dict)
    ends: dict[str, Counter[End]] = field(default_factory=lambda: defaultdict(Counter))
    wrongs: list[str] = field(default_factory=list)
    ended: int = 0
    _sent: int = 0
    _kinds: dict[str, str] = field(default_factory=dict)
    _by_body: dict[bytes, list[Malformed]] = field(default_factory=lambda: defaultdict(list))
    _may_die: set[bytes] = field(default_factory=set)

    def sent(self, message: Malformed) -> None:
        self._kinds[message.id] = self._kinds[message.reply_id] = message.kind
        if message.expected.ends == (End.NOTHING,):
            self.ends[message.kind][End.NOTHING] += 1
            return
        self._sent += 1
        if message.expected.may_die:
            self._may_die.add(_digest(message.body))
        self.pending[message.id] = self.pending[message.reply_id] = message
        self._by_body[_digest(message.body)].append(message)

    def reply(self, reply_id: str, reply: Reply) -> None:
        message = self.pending.get(reply_id)
        if message is None:
            kind = self._kinds.get(reply_id, "nobody knows")
            self._wrong(f"{kind} ({reply_id}): a reply too many: {reply.status} {reply.error}")
        elif reply.error is None:
            self._end(message, End.SERVED)
        else:
            self._end(message, End.ANSWERED, reply.error.type.value, reply.error.message)

    def kept(self, body: bytes, reason: str) -> None:
        if _digest(body) in self._may_die:
            return
        candidates = self._by_body.get(_digest(body), [])
        fitting = [m for m in candidates if End.KEPT in m.expected.ends and m.expected.says in reason]
        if not candidates:
            self._wrong(f"a copy of nothing that was sent is kept: {reason} {body[:80]!r}")
        else:
            self._end((fitting or candidates)[0], End.KEPT, says=reason)

    def returned(self, id_: str) -> None:
        self._by_id(id_, End.RETURNED)

    @property
    def waiting(self) -> int:
        """How many messages have no end yet."""
        return self._sent - self.ended

    def close(self) -> None:
        """Nothing more is to come: what is pending has no end."""
        for message in {m.id: m for m in self.pending.values()}.values():
            self._wrong(f"{message.kind} ({message.id}): no end; expected {_of(message)}")

    def table(self) -> str:
        width = max((len(kind) for kind in self.ends), default=0)
        header = f"{'kind':{width}}  " + " ".join(f"{end.value:>8}" for end in End)
        rows = [
            f"{kind:{width}}  " + " ".join(f"{counts[end] or '·':>8}" for end in End)
            for kind, counts in sorted(self.ends.items())
        ]
        sums: Counter[End] = sum(self.ends.values(), Counter())
        total = f"{'all ' + str(sums.total()):{width}}  " + " ".join(f"{sums[end]:>8}" for end in End)
        return "\n".join([header, *rows, total])

    def _by_id(self, id_: str, end: End) -> None:
        message = self.pending.get(id_)
        if message is None:
            self._wrong(f"{self._kinds.get(id_, 'nobody knows')} ({id_}): one end too many, {end}")
        else:
            self._end(message, end)

    def _end(self, message: Malformed, end: End, type_: str | None = None, says: str = "") -> None:
        self.pending.pop(message.id, None)
        self.pending.pop(message.reply_id, None)
        self._by_body[digest := _digest(message.body)].remove(message)
        if not self._by_body[digest]:
            del self._by_body[digest]
        self.ends[message.kind][end] += 1
        self.ended += 1
        expected = message.expected
        right = (
            end in expected.ends
            and (type_ is None or expected.type in {None, type_})
            and (end not in {End.ANSWERED, End.KEPT} or expected.says in says)
        )
        if not right:
            found = " ".join(word for word in (end, type_, says[:300]) if word)
            self._wrong(f"{message.kind} ({message.id}): expected {_of(message)}; found {found}")

    def _wrong(self, line: str) -> None:
        if len(self.wrongs) < _MOST_WRONGS:
            self.wrongs.append(line)


def _of(message: Malformed) -> str:
    expected = message.expected
    words = (" or ".join(expected.ends), expected.type, repr(expected.says) if expected.says else None)
    return " ".join(word for word in words if word)


def _digest(body: bytes) -> bytes:
    """A copy that is kept is cut to what a message may hold."""
    return hashlib.sha256(body[:MAX_MESSAGE_BYTES]).digest()
