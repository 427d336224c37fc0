"""Nothing but this machine can be reached: in the tests' process, and by sitecustomize in those they start."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

SESSION = "FINETUNE_TEST_SESSION"  # marks all processes that one pytest process starts (tests/support/processes.py)
SITE = str(Path(__file__).parent / "site")
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")
NOBODY = "http://127.0.0.1:9"  # the port of `discard`, where nobody listens: for programs that are not Python
# Audit event of Python -> which of its arguments tells where to (docs.python.org/3/library/audit_events.html).
_EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}


# The same for what starts a process: which argument is its environment, None for this one's.
_STARTS = {"subprocess.Popen": 3, "os.posix_spawn": 2, "os.exec": 2}
_PYTHONS = re.compile(r"python[\d.]*|wandb|env|make|(ba)?sh")  # Python, and what starts it


class BlockedError(OSError):
    """A test has asked for another machine."""


class UnguardedError(AssertionError):
    """A test has started a process that could ask for another machine; no OSError, which may be taken for a fault."""


def _look(event: str, arguments: tuple[object, ...]) -> None:
    if event in _STARTS:
        _look_at_start(arguments[_STARTS[event]], arguments[0])
    if event not in _EVENTS:
        return
    address = arguments[_EVENTS[event]]
    host = address[0] if isinstance(address, tuple) else address
    if not isinstance(address, tuple | str | bytes) or not host:
        return  # a Unix socket, or this machine by no name
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host.startswith(("/", "\0")) or host.startswith(LOOPBACK) or host == os.uname().nodename:
        return
    raise BlockedError(f"{event} to {host!r}: tests reach this machine alone")


def _look_at_start(given: object, program: object) -> None:
    if not _PYTHONS.fullmatch(Path(os.fsdecode(program)).name):  # type: ignore[arg-type]
        return
    environment = given if isinstance(given, Mapping) else os.environ
    texts = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
    path = texts.get("PYTHONPATH", "")
    if SITE not in path.split(os.pathsep):
        raise UnguardedError(f"{program!r} is started with PYTHONPATH={path!r}: use tests.support.offline.environment")
    if texts.get(SESSION) != os.environ.get(SESSION):
        raise UnguardedError(f"{program!r} is started without {SESSION}: use tests.support.offline.environment")


def install() -> None:
    """Refuse, in this process and for good, whatever leads to another machine."""
    sys.addaudithook(_look)


def environment(*folders: Path | str) -> dict[str, str]:
    """Return what has the processes that a test starts refuse the same, with these folders on Python's path, too."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOBODY)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = dict.fromkeys([SITE, *map(str, folders), *filter(None, known)])
    session = {SESSION: os.environ[SESSION]} if SESSION in os.environ else {}
    return {
        **session,
        **proxies,
        **{name.lower(): value for name, value in proxies.items()},
        "NO_PROXY": "127.0.0.1,localhost,::1",
        "no_proxy": "127.0.0.1,localhost,::1",
        "PYTHONPATH": os.pathsep.join(paths),
    }
