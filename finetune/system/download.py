"""Downloads: each file once, resumed after a cut, verified, and only then renamed.

Until the file is complete, these lie beside it:

    NAME.part       the bytes received so far
    NAME.part.json  the address and version that they belong to
    NAME.lock       held by the one process that downloads the file (this one stays)
"""

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import requests

from finetune.errors import DownloadError
from finetune.system import locks
from finetune.system.atomic import check_free_space, format_bytes, raising_user_error, raising_write_error
from finetune.system.documents import read_json, write_json
from finetune.system.progress_bar import progress_bar
from finetune.system.redaction import redact

logger = logging.getLogger(__name__)

PART, NOTE, LOCK = ".part", ".part.json", ".lock"
CHUNK_BYTES = 2**16  # a cut loses at most this much
CONNECT_SECONDS, SILENT_SECONDS = 15.0, 60.0  # until a server counts as gone
TRIES = 4  # in a row without a new byte, before it gives up
PAUSE_SECONDS = 1.0  # before the second try; doubled before each further one
SPARE_BYTES = 500e6  # stay free on the disk
DIGEST_HEADER = "X-Linked-ETag"  # the SHA-256 of a large file on the Hugging Face hub, in the redirect to its storage
_SHA256 = re.compile(r"[0-9a-f]{64}")
RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may not occur at the next try

_REASONS = (
    (requests.exceptions.SSLError, "no secure connection; is the clock right, is there a proxy?"),
    (requests.exceptions.ProxyError, "the proxy does not answer; see HTTPS_PROXY"),
    (requests.Timeout, "the server does not answer"),
    (requests.exceptions.ChunkedEncodingError, "the connection was cut"),
    (requests.ConnectionError, "no connection; is this machine online?"),
)

OFFLINE_HELP = """\
On a machine with internet, `make data` downloads what a sweep needs (SWEEP=file.yaml); copy it to the same places.
Or without: --set data=path/to/images --set weights=path/to/state_dict.pth; or `make demo`, which draws its own."""

Progress = Callable[[int, int | None], None]  # bytes received, and in total (None if the server does not say)


class RequiredFile(NamedTuple):
    """A file that runs need on this machine.

    Attributes:
        name: for messages, such as `weights resnet18 DEFAULT`.
        size: bytes, approximately.
        hint: what else would do.
    """

    name: str
    url: str
    path: Path
    size: float
    hint: str = ""


class RemoteFileInfo(NamedTuple):
    """What a server says about a file; None where it says nothing.

    Attributes:
        total: bytes.
        validator: changes with the file.
        digest: its SHA-256 in hexadecimal, which the Hugging Face hub sends.
    """

    total: int | None
    validator: str | None
    digest: str | None = None


def missing_files_message(missing: Sequence[RequiredFile]) -> str:
    """Return which files are missing and how to get them on a machine without internet."""
    count = "1 file is" if len(missing) == 1 else f"{len(missing)} files are"
    lines = [f"{count} not on this machine"]
    for file in missing:
        hint = f"  ({file.hint})" if file.hint else ""
        lines += [f"  {file.name}, {format_bytes(file.size)}", f"    from  {file.url}", f"    to    {file.path}{hint}"]
    return "\n".join([*lines, OFFLINE_HELP])


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(required: RequiredFile, digest: str | None = None) -> Path:
    """Download a file with a log line and a progress bar; see `download`."""
    logger.info(f"downloading {required.url} to {required.path}: {format_bytes(required.size)}, once")
    with progress_bar(required.path.name, in_bytes=True) as advance:
        return download(required.url, required.path, digest=digest, on_progress=advance)


def download(
    url: str,
    path: Path,
    *,
    digest: str | None = None,
    on_progress: Progress = lambda done, total: None,  # noqa: ARG005
) -> Path:
    """Download `url` to `path` and return that; an existing file is left as it is.

    Several processes can call this at once: one downloads, the others wait. If it ends early, the received bytes are
    kept, and the next call continues.

    Args:
        digest: the first digits of the file's SHA-256 in hexadecimal; None to accept any content.
        on_progress: called again and again with bytes received and in total.

    Raises:
        DownloadError: the file can't be downloaded, or its SHA-256 differs.
        DiskFullError: the disk is full.
    """
    if path.is_file():
        return path
    part = _PartialFile(url, path)
    with raising_user_error(path, DownloadError, part.kept_message):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.hold(path.with_name(path.name + LOCK)):
            if not path.is_file():  # otherwise another process has downloaded it meanwhile
                _download_with_retries(part, on_progress)
                info = part.info()
                _verify(part, digest or (info.digest if info else None))
                part.rename_to(path)
    return path


class _PartialFile:
    """The bytes of a download received so far, and the note on the file that they belong to."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.path = path.with_name(path.name + PART)
        self._note = path.with_name(path.name + NOTE)
        self._url_hash = hashlib.sha256(url.encode()).hexdigest()  # the URL itself may be signed

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def info(self) -> RemoteFileInfo | None:
        """Return the noted file, or None if the note is damaged or of another address."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            note: dict[str, Any] | None = read_json(self._note)
            if note is not None and note["of"] == self._url_hash:
                return RemoteFileInfo(note["total"], note["validator"], note.get("digest"))
        return None

    def note_info(self, info: RemoteFileInfo) -> None:
        write_json(self._note, {"of": self._url_hash, "url": redact(self.url), **info._asdict()})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def rename_to(self, path: Path) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(path)
        self._note.unlink(missing_ok=True)

    def kept_message(self) -> str:
        """Return the end of an error message: how much is kept."""
        size = self.size()
        return f". {format_bytes(size)} of it are kept: the same command continues from there" if size else ""


def _download_with_retries(part: _PartialFile, on_progress: Progress) -> None:
    failures = 0
    while True:
        before = part.size()
        try:
            if _try_once(part, on_progress):
                return
            reason = "the connection was cut"
        except requests.RequestException as error:
            # Without the stack of wrappers that requests puts around the cause.
            reason = next((text for kind, text in _REASONS if isinstance(error, kind)), str(error))
        failures = 0 if part.size() > before else failures + 1
        if failures == TRIES:
            raise DownloadError(f"{part.url} can't be downloaded ({reason}){part.kept_message()}")
        time.sleep(PAUSE_SECONDS * 2 ** max(failures - 1, 0))


def _try_once(part: _PartialFile, on_progress: Progress) -> bool:
    """Request the missing bytes and write those that arrive; return whether the file is complete.

    Raises:
        requests.RequestException: another try may succeed.
        DownloadError: no try will.
    """
    known = part.info()
    size = part.size() if known is not None else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "finetune-sweeps"}
    if known is not None and size:
        headers["Range"] = f"bytes={size}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with requests.get(part.url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENT_SECONDS)) as response:
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == 416 and content_range == f"bytes */{size}":  # there are no further bytes
            return True
        if response.status_code not in (200, 206, 416):
            answer = f"the server answers {response.status_code} {response.reason}"
            if response.status_code in RETRY_STATUSES:
                raise requests.HTTPError(answer)
            raise DownloadError(f"{part.url} can't be downloaded: {answer}")
        info = _remote_file_info(response)
        is_rest = response.status_code == 206 and content_range.startswith(f"bytes {size}-") and info == known
        if response.status_code != 200 and not is_rest:
            part.discard()  # the file has changed
            return False
        return _append(part, response, info, size if is_rest else 0, on_progress)


def _append(
    part: _PartialFile, response: requests.Response, info: RemoteFileInfo, start: int, on_progress: Progress
) -> bool:
    """Write the response's bytes from position `start` on; return whether the file is complete."""
    missing = None if info.total is None else info.total - start
    check_free_space(part.path.parent, missing or 0, SPARE_BYTES, f"the rest of {part.url}")
    part.note_info(info)
    with raising_write_error(part.path, missing), part.path.open("r+b" if part.path.exists() else "wb") as file:
        file.truncate(start)
        file.seek(start)
        on_progress(start, info.total)
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            start += len(chunk)
            on_progress(start, info.total)
    return info.total is None or start == info.total


def _remote_file_info(response: requests.Response) -> RemoteFileInfo:
    """Return what the headers say about the complete file."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if response.status_code == 206:
        match = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
        total = int(match[1]) if match else None
    etag = response.headers.get("ETag", "")
    # A weak ETag promises the same meaning, not the same bytes (RFC 9110, section 13.1.5).
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    linked = (answer.headers.get(DIGEST_HEADER, "").strip('"') for answer in (*response.history, response))
    return RemoteFileInfo(total, validator, next((text for text in linked if _SHA256.fullmatch(text)), None))


def _verify(part: _PartialFile, digest: str | None) -> None:
    """Delete the file and raise DownloadError if its SHA-256 does not begin with `digest`."""
    if digest is not None and not (found := sha256(part.path)).startswith(digest):
        part.discard()
        raise DownloadError(
            f"{part.url} arrived damaged, or is another file by now: its SHA-256 is {found}, not {digest}...; it was "
            "deleted"
        )
