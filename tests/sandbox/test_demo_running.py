"""The demo's command line and its child, with small programs in the place of `optimizer up`."""

import sys
from pathlib import Path

import pytest

from sandbox.demo.__main__ import main
from sandbox.demo.errors import DemoFailed
from sandbox.demo.up import Up

SERVES = """
import json, os, signal, sys, pathlib
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ready = pathlib.Path(sys.argv[sys.argv.index("--ready-file") + 1])
part = ready.with_suffix(".part")
part.write_text(json.dumps({"amqp_url": "amqp://a", "redis_url": "redis://b", "simulators": {"s": "http://c/v1"}}))
part.rename(ready)
print("session", os.getsid(0) == os.getpid(), flush=True)
while True:
    signal.pause()
"""


def up(folder: Path, program: str) -> Up:
    return Up(folder, ["--simulate"], command=(sys.executable, "-c", program))


async def test_the_child_is_waited_for_and_stopped_in_order(tmp_path: Path) -> None:
    child = up(tmp_path / "o", SERVES)

    async with child:
        ready = await child.ready()

    assert (ready.amqp_url, ready.simulators) == ("amqp://a", {"s": "http://c/v1"})
    assert "amqp" not in repr(ready)
    assert child.exit_status == 0
    assert "session True" in child.tail()
    assert [path.name for path in (tmp_path / "o" / "demo").iterdir()] == ["up.log"]


async def test_a_child_that_ends_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = up(tmp_path / "o", "import sys; sys.exit('no broker was found')")

    async with child:
        with pytest.raises(DemoFailed, match="no broker was found"):
            await child.ended()

    assert child.exit_status == 1


async def test_a_ready_file_of_an_earlier_run_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "ready.json").write_text("{}")

    async with up(tmp_path, SERVES) as child:
        assert (await child.ready()).amqp_url == "amqp://a"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--provider", "groq"], "GROQ_API_KEY"),
        (["--provider", "groq", "--workload", "trace"], "never sent a trace"),
        (["--trace", "/nowhere.jsonl"], "cannot be read"),
    ],
)
def test_options_that_cannot_be_used_end_with_2_and_start_nothing(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)

    assert main([*arguments, "--folder", str(tmp_path / "o")]) == 2

    assert told in capsys.readouterr().out
    assert not (tmp_path / "o").exists()


def test_seconds_beyond_the_life_of_an_answer_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--seconds", "900"])

    assert "--seconds" in capsys.readouterr().err
