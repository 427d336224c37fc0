"""Nothing but this machine can be reached: in the tests' process, and by sitecustomize in those they start."""

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")
NOBODY = "http://127.0.0.1:9"  # the port of `discard`, where nobody listens: for programs that are not Python
# Audit event of Python -> which of its arguments tells where to (docs.python.org/3/library/audit_events.html).
_EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}


class BlockedError(OSError):
    """A test has asked for another machine."""


def _look(event: str, arguments: tuple[object, ...]) -> None:
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


def install() -> None:
    """Refuse, in this process and for good, whatever leads to another machine."""
    sys.addaudithook(_look)


def environment() -> dict[str, str]:
    """Return what has the processes that a test starts refuse the same."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOBODY)
    paths = [str(FOLDER / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **proxies,
        **{name.lower(): value for name, value in proxies.items()},
        "NO_PROXY": "127.0.0.1,localhost,::1",
        "no_proxy": "127.0.0.1,localhost,::1",
        "PYTHONPATH": os.pathsep.join(paths),
    }
