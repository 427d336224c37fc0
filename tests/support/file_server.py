"""A loopback HTTP server of one file that can cut connections, lie about lengths, and change its mind."""

import contextlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Served:
    """What is served, and how badly.

    Attributes:
        content: of the file.
        etag: its validator; None sends none.
        ranges: whether a Range is honoured.
        cut_after: for each answer in turn, the bytes of its body after which the connection is cut; None for whole.
        longer: bytes that Content-Length claims beyond what comes.
        statuses: answered first, instead of the file.
        pause: seconds before each 64 KiB.
        asked: the Range header of each request, None where there was none.
    """

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: list[int | None] = field(default_factory=list)
    longer: int = 0
    statuses: list[int] = field(default_factory=list)
    pause: float = 0.0
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Serve it at `served.url`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            served.asked.append(wanted)
            if served.statuses:
                self.send_error(served.statuses.pop(0))
                return
            match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
            same = self.headers.get("If-Range") in (None, served.etag)
            start = int(match[1]) if match and served.ranges and same else 0
            total = len(served.content)
            if start and start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = served.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) + served.longer))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total + served.longer - 1}/{total + served.longer}")
            if served.etag:
                self.send_header("ETag", served.etag)
            self.end_headers()
            limit = served.cut_after.pop(0) if served.cut_after else None
            body = body[:limit]
            with contextlib.suppress(ConnectionError):
                for offset in range(0, len(body), 2**16):
                    time.sleep(served.pause)
                    self.wfile.write(body[offset : offset + 2**16])
            self.close_connection = True

        def log_message(self, *args: object) -> None:  # keeps quiet
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/nature_12K.zip"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
