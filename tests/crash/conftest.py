from functools import partial

import pytest

from producer_sdk import calls, core

_SILENCE_S = 2.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sends again what stays silent after 2 s, not after 30."""
    monkeypatch.setattr(core, "_Pending", partial(core._Pending, silence_s=_SILENCE_S))
    monkeypatch.setattr(calls, "FIRST_SILENCE_S", _SILENCE_S)
