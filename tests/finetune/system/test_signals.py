"""Signals: the first one lets a run save and end, the second ends everything."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from finetune.system import signals
from finetune.system.signals import counting_signals, handle_signals, polling_signals
from tests.support.processes import end_marked, marked, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_nobody_asks_a_signal_ends_the_process_through_all_finallys(number: int) -> None:
    """The exit code is 128 + its number; the handlers of before are back afterwards."""
    before = signal.getsignal(number)
    left = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            left.append(True)

    with handle_signals() as received, pytest.raises(SystemExit) as ended:
        work()
    assert (ended.value.code, received.number, left) == (128 + number, number, [True])
    assert signal.getsignal(number) is before


def test_where_somebody_asks_a_signal_is_only_noted() -> None:
    """Its number stays, for whoever asks."""
    with handle_signals() as received, polling_signals():
        assert received.number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert received.number == signal.SIGTERM
    with handle_signals(), pytest.raises(SystemExit):  # nobody asks any more
        os.kill(os.getpid(), signal.SIGTERM)


def test_signals_are_counted_from_the_last_one_that_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who presses Ctrl-C three times a second is heard a second time, though no pause is long enough."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with counting_signals() as received:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            now[0] += 1 / 3
        assert (received.count, received.number) == (2, signal.SIGINT)


def test_a_signal_of_an_inner_block_counts_for_the_outer_one() -> None:
    """A command, whose run stopped at a signal, still knows which one."""
    with handle_signals() as outer, counting_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert outer.number == signal.SIGTERM


def test_a_command_leaves_ignored_signals_alone() -> None:
    """Such as those of `nohup`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handle_signals(keep_custom=True) as received:
            os.kill(os.getpid(), signal.SIGINT)
        assert received.number == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_sent_twice_at_the_same_moment_is_one_request() -> None:
    """As `timeout` does it: to the process and to its group."""
    code = (
        "import os, signal; from finetune.system.signals import handle_signals, polling_signals\n"
        "with handle_signals() as received, polling_signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)\n"
        "print(received.number)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "15\n")


STUBBORN = """
import subprocess, sys, time
from pathlib import Path
from finetune.system.signals import handle_signals, polling_signals
code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
with handle_signals(), polling_signals():
    subprocess.Popen([sys.executable, "-c", code + "; print('up', flush=True); time.sleep(99)"], start_new_session=True)
    while True:
        time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_process_and_all_that_it_has_started(number: int) -> None:
    """Children and theirs too, in whatever session, though the process itself would never end."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) == 2
        process.send_signal(number)
        time.sleep(signals.SAME_REQUEST_SECONDS + 0.1)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        process.stdout.close()
        wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in started))
    finally:
        process.kill()


def test_a_loader_process_outlives_the_signals_for_a_while() -> None:
    """SIGINT does nothing to it; SIGTERM ends it, but later."""
    code = (
        "import os, signal; from finetune.system.signals import ignore_signals_in_worker; ignore_signals_in_worker(0)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): os.kill(os.getpid(), number)\n"
        "print(signal.alarm(1), flush=True); signal.pause()"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGALRM
    assert int(done.stdout) > 5  # the seconds it still had


LIVES_ON = """
import os, subprocess
def start():
    return subprocess.Popen(["sleep", "99"], start_new_session=True)
started = [start() for _ in range(100)]
print("up", flush=True)
while True:
    os.wait()
    print("went on", flush=True)
    started.append(start())
"""


def test_a_tree_of_processes_is_ended_before_any_of_it_can_act(tmp_path: Path) -> None:
    """In whatever sessions they are: none outlives what it waits for, starts it anew or ends as if all were well."""
    mark = str(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", LIVES_ON], stdout=subprocess.PIPE, text=True, env={**os.environ, "AGENT_MARK": mark}
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            signals.kill_tree(process.pid)
            assert process.wait(60) == -signal.SIGKILL
            wait_until(lambda: not marked(mark))
            assert process.stdout.read() == ""
        finally:
            end_marked(mark)
    signals.kill_tree(process.pid)  # nothing is left, and that is no error


SLOW_MODULE = """
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(0.2)
begun = True
"""

IMPORTERS = {
    "run": """
from finetune.system.signals import handle_signals
with handle_signals() as received:
    try:
        work()
    except SystemExit:
        print("left by", received.number)
""",
    "command": """
from finetune.system.output import command
@command
def main():
    try:
        work()
    finally:
        print("left by", int(signal.{name}))
sys.exit(main())
""",
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("importer", IMPORTERS)
def test_a_signal_leaves_no_import_half_done(tmp_path: Path, importer: str, name: str) -> None:
    """Inside of torch's libraries that would end in an abort; the signal is obeyed as soon as the module is there."""
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE.format(name=name))
    work = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
def work():
    import slow_module
    print("begun", slow_module.begun, flush=True)
    time.sleep(60)
"""
    code = work + IMPORTERS[importer].format(name=name)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=50, check=False
    )
    number = getattr(signal, name)
    assert ended.stdout.split("\n")[:2] == ["begun True", f"left by {int(number)}"]
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (128 + number if importer == "command" else 0)
