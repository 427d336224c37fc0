"""Claims: at most one live owner a run, and a dead one gives way."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune import claim
from finetune.claim import TakenError, attempts, claimed, is_alive


def test_a_live_owner_keeps_others_out_and_a_released_claim_does_not(tmp_path: Path) -> None:
    """The same process too can claim a run again only after letting it go."""
    with claimed(tmp_path) as first:
        assert first.attempt == 1
        assert is_alive(tmp_path)
        with pytest.raises(TakenError), claimed(tmp_path):
            pass
    assert not is_alive(tmp_path)
    with claimed(tmp_path) as second:
        assert second.attempt == 2
    assert attempts(tmp_path) == 2


def test_a_killed_owner_gives_way_at_once(tmp_path: Path) -> None:
    """On the same machine no time-out is needed: the process is gone."""
    code = (
        "import os, sys; from pathlib import Path; from finetune.claim import claimed\n"
        "with claimed(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert not is_alive(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine.attempt == 2


def test_an_owner_elsewhere_is_dead_when_its_heartbeat_stops(tmp_path: Path) -> None:
    """Another machine's process can't be looked at; its claim's age, by the file system's clock, decides."""
    file = tmp_path / "claim-1.json"
    file.write_text(json.dumps({"host": "elsewhere/1", "pid": 1, "started": 0.0, "released": False}))
    assert is_alive(tmp_path)
    old = time.time() - claim.STALE_SECONDS - 1
    os.utime(file, (old, old))
    assert not is_alive(tmp_path)


def test_an_owner_that_was_taken_over_finds_out_at_its_next_beat(tmp_path: Path) -> None:
    """A machine that was suspended must not go on writing into a run that another has taken."""
    with claimed(tmp_path) as mine:
        (tmp_path / "claim-2.json").write_text("{}")
        with pytest.raises(TakenError):
            mine.beat()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    """Processes that start in the same instant: exactly one runs."""
    code = (
        "import sys, time; from pathlib import Path; from finetune.claim import claimed, TakenError\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "try:\n"
        "    with claimed(Path(sys.argv[1])): time.sleep(1.5); print('ran')\n"
        "except TakenError: print('taken')"
    )
    start = time.time() + 1.5
    commands = [[sys.executable, "-c", code, str(tmp_path), str(start)] for _ in range(6)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate()[0].strip() for process in processes]
    assert sorted(said) == ["ran", *["taken"] * 5]
