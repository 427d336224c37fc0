"""Claims: at most one live owner a run, and a dead one gives way."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.rundir import claim, files, keys
from finetune.rundir.claim import RunTakenError, attempts, hold_claim, is_alive
from finetune.system import atomic, documents
from finetune.system.atomic import create_exclusive, replacing, write_guard
from finetune.system.tables import write_table
from tests.support.processes import wait_until


def test_a_live_owner_keeps_others_out_and_a_released_claim_does_not(tmp_path: Path) -> None:
    """The same process too can claim a run again only after letting it go."""
    with hold_claim(tmp_path) as first:
        assert first.attempt == 1
        assert is_alive(tmp_path)
        with pytest.raises(RunTakenError), hold_claim(tmp_path):
            pass
    assert not is_alive(tmp_path)
    with hold_claim(tmp_path) as second:
        assert second.attempt == 2
    assert attempts(tmp_path) == 2


def test_a_killed_owner_gives_way_at_once(tmp_path: Path) -> None:
    """On the same machine no time-out is needed: the process is gone."""
    code = (
        "import os, sys; from pathlib import Path; from finetune.rundir.claim import hold_claim\n"
        "with hold_claim(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert not is_alive(tmp_path)
    with hold_claim(tmp_path) as mine:
        assert mine.attempt == 2


def test_an_owner_elsewhere_is_dead_when_its_heartbeat_stops(tmp_path: Path) -> None:
    """Another machine's process can't be looked at; its claim's age, by the file system's clock, decides."""
    file = tmp_path / "claim-1.json"
    file.write_text(json.dumps({"host": "elsewhere/1", "pid": 1, "started": 0.0, "released": False}))
    assert is_alive(tmp_path)
    old = time.time() - atomic.STALE_SECONDS - 1
    os.utime(file, (old, old))
    assert not is_alive(tmp_path)


def test_an_owner_that_was_taken_over_finds_out_at_its_next_beat(tmp_path: Path) -> None:
    """A machine that was suspended must not go on writing into a run that another has taken."""
    with hold_claim(tmp_path) as mine:
        (tmp_path / "claim-2.json").write_text("{}")
        with pytest.raises(RunTakenError):
            mine.beat()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    """Processes that start in the same instant: exactly one runs."""
    code = (
        "import sys, time; from pathlib import Path; from finetune.rundir.claim import RunTakenError, hold_claim\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "try:\n"
        "    with hold_claim(Path(sys.argv[1])): time.sleep(1.5); print('ran')\n"
        "except RunTakenError: print('taken')"
    )
    start = time.time() + 1.5
    commands = [[sys.executable, "-c", code, str(tmp_path), str(start)] for _ in range(6)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate()[0].strip() for process in processes]
    assert sorted(said) == ["ran", *["taken"] * 5]


ELSEWHERE = {"host": "elsewhere/1/pid:[1]", "pid": 1, "started": 1.0, "released": False}


def claim_of_another(run_dir: Path, number: int = 1, silent_seconds: float = 0.0, **said: Any) -> Path:
    """Write a claim file as another owner would have."""
    file = run_dir / f"claim-{number}.json"
    file.write_text(json.dumps({**ELSEWHERE, **said}))
    then = time.time() - silent_seconds
    os.utime(file, (then, then))
    return file


def test_a_container_of_the_same_name_is_another_place(tmp_path: Path) -> None:
    """Same host name, same boot, another pid namespace: its process ids say nothing here, the heartbeat does."""
    name, boot, namespace = claim._host().split("/")
    assert namespace == str(Path("/proc/self/ns/pid").readlink())
    other = f"{name}/{boot}/pid:[1]"
    claim_of_another(tmp_path, host=other, pid=2**22 - 1)
    assert is_alive(tmp_path)  # no such process here, and yet it lives
    claim_of_another(tmp_path, host=other, pid=os.getpid(), silent_seconds=atomic.STALE_SECONDS + 1)
    assert not is_alive(tmp_path)  # there is one here, and yet it is dead


def test_the_clock_that_is_set_does_not_end_a_live_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's start as a time of day moves with the clock (psutil's does); ticks since boot do not."""
    with hold_claim(tmp_path):
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 3600)
        monkeypatch.setattr("time.time", lambda: 0.0)
        assert is_alive(tmp_path)
        said = json.loads((tmp_path / "claim-1.json").read_text())
        claim_of_another(tmp_path, 1, **{**said, "started": said["started"] - 100})  # the id is used again
        assert not is_alive(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '"x"', "{}", '{"host": 1}', "\x00" * 40])
def test_a_claim_that_can_not_be_read_is_judged_by_its_age(content: str, tmp_path: Path) -> None:
    """Empty or torn, it is being written, or power was cut: no traceback, nobody alive is taken over."""
    file = claim_of_another(tmp_path)
    file.write_text(content)
    assert is_alive(tmp_path)
    with pytest.raises(RunTakenError), hold_claim(tmp_path):
        pass
    os.utime(file, (0, 0))
    assert not is_alive(tmp_path)
    with hold_claim(tmp_path) as mine:
        assert mine.attempt == 2


def test_files_that_only_look_like_claims_are_passed_over(tmp_path: Path) -> None:
    """They neither own the run nor break anything."""
    for name in ("claim-x.json", "claim-.json", "claim-1.json.bak", "claim-01.json", "claim--1.json"):
        (tmp_path / name).write_text("{}")
    assert not is_alive(tmp_path)
    assert attempts(tmp_path) == 0
    with hold_claim(tmp_path) as mine:
        assert mine.attempt == 1


def test_a_claim_that_is_listed_and_can_not_be_opened_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over NFS a listing and a file may be of different moments."""
    claim_of_another(tmp_path, silent_seconds=1000)

    def stale(_: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(claim, "_read", stale)
        assert is_alive(tmp_path)
        with pytest.raises(RunTakenError), hold_claim(tmp_path):
            pass
    assert not is_alive(tmp_path)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_clocks_of_machines_need_not_agree(minutes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner whose clock is wrong, on a file system that takes its word for a time that it sets."""
    utime, now = os.utime, time.time

    def skewed(path: Path, times: tuple[float, float] | None = None, **_: object) -> None:
        utime(path, times or (now() + 60 * minutes, now() + 60 * minutes))

    with hold_claim(tmp_path) as mine:
        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", skewed)
            patch.setattr(time, "time", lambda: now() + 60 * minutes)
            mine.beat()
        monkeypatch.setattr(claim, "_host", lambda: "an observer elsewhere")
        assert is_alive(tmp_path)
        monkeypatch.setattr(time, "time", lambda: now() - 60 * minutes)
        assert is_alive(tmp_path)
        old = now() - atomic.STALE_SECONDS - 5
        utime(tmp_path / "claim-1.json", (old, old))
        assert not is_alive(tmp_path)


def test_on_a_full_disk_a_fresh_heartbeat_is_told_by_the_disks_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name can be made there, and has its time; an observer's clock that is ahead makes nobody dead."""
    (tmp_path / "claim-1.json").write_text(
        json.dumps({"host": "elsewhere/1", "pid": 1, "started": 0.0, "released": False})
    )
    now, write = time.time, Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, b"")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{path}, {len(content)} bytes")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(time, "time", lambda: now() + 600)
    assert is_alive(tmp_path)
    assert list(tmp_path.glob(".*")) == []


def test_a_claim_given_back_on_a_full_disk_still_says_whose_the_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier owner who was silent, and wakes up then, must not take the run for its own."""
    first = claim.Claim(claim._take(tmp_path))
    claim_of_another(tmp_path, 2)
    (tmp_path / "claim-2.json").write_text(claim._owner(released=False))
    second = claim.Claim(tmp_path / "claim-2.json")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(claim, "write_atomic", full)
        second.release()
    with pytest.raises(RunTakenError):
        first.check()
    claim._released.clear()  # as in any other process
    assert not is_alive(tmp_path)
    with hold_claim(tmp_path) as mine:
        assert mine.attempt == 3


def test_a_process_that_is_hidden_is_judged_by_its_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process of another user's, whose id is one that a dead run had, no start can be seen."""
    file = tmp_path / "claim-1.json"
    file.write_text(json.dumps({"host": claim._host(), "pid": 1, "started": 0.0, "released": False}))
    read = Path.read_text

    def hidden(path: Path, *given: Any, **named: Any) -> str:
        if path.match("/proc/[0-9]*/stat"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *given, **named)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "read_text", hidden)
    monkeypatch.setattr(os, "kill", refused)
    assert is_alive(tmp_path)
    old = time.time() - atomic.STALE_SECONDS - 1
    os.utime(file, (old, old))
    assert not is_alive(tmp_path)


def test_a_heartbeat_outlives_a_file_server_that_is_away_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failed beat is not the last one."""
    monkeypatch.setattr(claim, "HEARTBEAT_SECONDS", 0.01)
    beats = []

    def beat(self: claim.Claim) -> None:
        beats.append(self)
        if len(beats) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(claim.Claim, "beat", beat)
    with hold_claim(tmp_path):
        wait_until(lambda: len(beats) > 3)


def test_who_has_lost_a_run_writes_nothing_more_into_it(tmp_path: Path) -> None:
    """A machine that was suspended wakes up in the middle of a save; what the new owner has written stays."""
    with pytest.raises(RunTakenError), hold_claim(tmp_path):  # noqa: PT012
        documents.write_json(tmp_path / keys.STATE, {"by": "the first"})
        files.append_history(tmp_path, {"epoch": 1})
        with replacing(tmp_path / keys.BEST) as temporary:
            temporary.write_text("late")
            claim_of_another(tmp_path, 2)
            (tmp_path / keys.BEST).write_text("the new owner's")
    for write in (
        lambda: documents.write_json(tmp_path / keys.STATE, {"by": "the late one"}),
        lambda: files.append_history(tmp_path, {"epoch": 2}),
        lambda: write_table(tmp_path / keys.PREDICTIONS, ["a"], [["b"]]),
    ):
        with write_guard(tmp_path, claim.Claim(tmp_path / "claim-1.json").check), pytest.raises(RunTakenError):
            write()
    assert (tmp_path / keys.BEST).read_text() == "the new owner's"
    assert documents.read_json(tmp_path / keys.STATE) == {"by": "the first"}
    assert files.read_history(tmp_path)[0] == [{"epoch": 1}]
    assert not (tmp_path / keys.PREDICTIONS).exists()
    assert not list(tmp_path.glob(".*"))
    documents.write_json(tmp_path / keys.STATE, {"by": "who was never guarded"})  # an agent, say


def test_a_killed_writers_files_go_with_the_next_owner(tmp_path: Path) -> None:
    """What only the owner writes goes at once, what others may be writing when it is old."""
    mine = [".best.pt.0123abcd.tmp", ".state.json.0123abcd.tmp", ".claim-1.json.0123abcd.tmp"]
    others = [".stop.0123abcd.tmp", ".wandb-1.json.0123abcd.tmp", ".claim-2.json.0123abcd.tmp", ".probe.0123abcd.tmp"]
    kept = ["best.pt", ".best.pt.tmp", ".hidden", "x.tmp"]
    for name in [*mine, *others, *kept]:
        (tmp_path / name).write_text("")
    for name in others[:2]:
        os.utime(tmp_path / name, (0, 0))
    with hold_claim(tmp_path):
        left = {path.name for path in tmp_path.iterdir()} - {"claim-1.json"}
    assert left == {*others[2:3], *kept}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links_one_process_gets_a_claim_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network file systems have none."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with hold_claim(tmp_path) as mine, pytest.raises(RunTakenError), hold_claim(tmp_path):
        pass
    assert mine.attempt == 1
    assert json.loads((tmp_path / "claim-1.json").read_text())["released"]
    assert [path.name for path in tmp_path.iterdir()] == ["claim-1.json"]


def test_a_link_whose_answer_was_lost_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS sends a request again, and is then told that the name exists: it is the caller's own."""
    link = os.link

    def twice(*names: Path) -> None:
        link(*names)
        link(*names)

    monkeypatch.setattr(os, "link", twice)
    assert create_exclusive(tmp_path / "name", "mine")
    assert not create_exclusive(tmp_path / "name", "another's")
    assert (tmp_path / "name").read_text() == "mine"


RIVAL = """
import os, sys, time
from pathlib import Path
import finetune.rundir.claim as claim
if sys.argv[3] == "no links":
    def refuse(*_): raise PermissionError(1, "Operation not permitted")
    os.link = refuse
for place in range(int(sys.argv[2])):
    (Path(sys.argv[1]) / f"ready-{place}-{os.getpid()}").touch()
    while not (Path(sys.argv[1]) / f"go-{place}").exists():
        time.sleep(0.001)
    try:
        with claim.hold_claim(Path(sys.argv[1]) / str(place)):
            while not (Path(sys.argv[1]) / f"go-{place + 1}").exists():
                time.sleep(0.001)
            print(place, "won", flush=True)
    except claim.RunTakenError:
        pass
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_in_each_of_many_rounds_one_of_those_that_start_at_once_wins(links: str, tmp_path: Path) -> None:
    """Four processes at a barrier, sixty rounds, with hard links and without; the winner holds on to the next."""
    rounds, rivals = 60, 4
    commands = [[sys.executable, "-c", RIVAL, str(tmp_path), str(rounds), links] for _ in range(rivals)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        for place in range(rounds):
            if place % 2:  # with a dead owner to take over from
                (tmp_path / str(place)).mkdir()
                claim_of_another(tmp_path / str(place), silent_seconds=1000)
            ready = rivals - 1 if place else rivals  # the winner of the last round waits for this one
            wait_until(lambda: len(list(tmp_path.glob(f"ready-{place}-*"))) >= ready, 60)  # noqa: B023
            (tmp_path / f"go-{place}").touch()
        time.sleep(0.2)
        (tmp_path / f"go-{rounds}").touch()
        won = [line for process in processes for line in process.communicate(timeout=60)[0].splitlines()]
    finally:
        for process in processes:
            process.kill()  # nothing to those that have ended
    assert sorted(won, key=lambda line: int(line.split()[0])) == [f"{place} won" for place in range(rounds)]
