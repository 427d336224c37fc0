"""The guard keeps tests from reaching other machines, here and in processes that tests start."""

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest

from tests import ROOT
from tests.support import offline


def _send(host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (host, 53))


@pytest.mark.parametrize(
    "connect",
    [
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
        lambda: _send("192.0.2.1"),
    ],
    ids=["connect", "getaddrinfo", "gethostbyname", "sendto"],
)
def test_another_machine_is_out_of_reach(connect: Callable[[], object]) -> None:
    """By name or by address, in any way: the guard's error, and no packet leaves."""
    with pytest.raises(OSError, match="this machine alone"):
        connect()


def test_this_machine_is_in_reach() -> None:
    """A server on loopback can be reached, by address and by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_started_processes_have_the_guard_as_well() -> None:
    """A child and its child; programs that are not Python get a proxy that does not exist."""
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    nested = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    for script in (code, nested):
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert "this machine alone" in ended.stderr
    assert urllib.request.getproxies()["https"] == "http://127.0.0.1:9"
    assert os.environ["NO_PROXY"].startswith("127.0.0.1")


@pytest.mark.parametrize(
    "environment", [{}, {"PYTHONPATH": str(ROOT)}, {**os.environ, "PYTHONPATH": ""}, {"PYTHONPATH": offline.SITE}]
)
def test_no_process_is_started_without_the_guard(environment: dict[str, str]) -> None:
    """Neither here, in any way, nor by a process that has it; with `offline.environment` it is started."""
    # Caught by its base class: in a process of pytest-xdist, which has had the guard twice, the error has two classes.
    code = f"import subprocess, sys; subprocess.run([sys.executable, '--version'], env={environment!r})"
    with pytest.raises(AssertionError, match=r"use tests\.support\.offline\.environment"):
        subprocess.run([sys.executable, "--version"], env=environment, check=False)
    with pytest.raises(AssertionError, match=r"use tests\.support\.offline\.environment"):
        os.posix_spawn(sys.executable, [sys.executable, "--version"], environment)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "use tests.support.offline.environment" in ended.stderr
    kept = {**environment, **offline.environment(ROOT)}
    subprocess.run([sys.executable, "-c", "import tests"], env=kept, cwd="/", check=True)


def test_a_changed_environment_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that removes the guard from its own environment starts nothing either."""
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(AssertionError, match=r"use tests\.support\.offline\.environment"):
        subprocess.run([sys.executable, "--version"], check=True)


def test_processes_with_fail_points_keep_the_guard() -> None:
    """Python runs only one `sitecustomize`: there that of chaos, which runs the guard's."""
    path = os.pathsep.join([str(ROOT / "chaos/hook"), str(ROOT), offline.SITE])
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "this machine alone" in ended.stderr
