"""Files from the internet: each fetched once, resumed after a cut, checked, and only then called by its name.

Beside the file lie, until it is whole,

    NAME.part       what has come so far
    NAME.part.json  of which address and version that is a part
    NAME.lock       held by the one process that fetches it (this one stays)
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import requests
from filelock import Timeout

from finetune.errors import DiskFullError, DownloadError
from finetune.system import locks
from finetune.system.atomic import DISK_FULL_ERRNOS, WriteError, raising_write_error
from finetune.system.documents import read_json, write_json
from finetune.system.redaction import redact

PART, NOTE, LOCK = ".part", ".part.json", ".lock"
CHUNK_BYTES = 2**16  # a cut costs at most so many
CONNECT_SECONDS, SILENT_SECONDS = 15.0, 60.0  # until a server counts as gone
TRIES = 4  # without a single byte more, before it gives up
PAUSE_SECONDS = 1.0  # before the second try; twice as long before each further one
SPARE_BYTES = 500e6  # stay free on the disk
POLL_SECONDS = 0.2
RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that may be gone at the next try

HOW_TO_BRING = """\
Where there is internet, `make data` fetches what a sweep needs (SWEEP=file.yaml); bring it to the same places.
Or without: --set data=path/to/pictures --set weights=path/to/state_dict.pth; or `make demo`, which draws its own."""

Progress = Callable[[int, int | None], None]


class RequiredFile(NamedTuple):
    """A file that is to be on this machine.

    Attributes:
        what: in words.
        url, path: from where, and its place here.
        size: bytes, about.
        hint: what else would do, in words.
    """

    what: str
    url: str
    path: Path
    size: float
    hint: str = ""


class RemoteFileInfo(NamedTuple):
    """What a server says of a file: its size, and a validator that changes when it does; None where it does not say."""

    total: int | None
    validator: str | None


def download(
    url: str,
    path: Path,
    *,
    digest: str | None = None,
    on_progress: Progress = lambda done, total: None,  # noqa: ARG005
    on_wait: Callable[[], None] = lambda: None,
) -> Path:
    """Have the file of `url` at `path`, whole, and return that; a file that is there already is taken as it is.

    Several processes can call this at once: one fetches, the others wait. Whatever ends it, what has come is kept, and
    the next call goes on from there.

    Args:
        digest: how the file's SHA-256 begins, in hexadecimal; None to take what comes.
        on_progress: called with bytes that are here and of the whole file, None where the server does not say.
        on_wait: called a few times a second while another process fetches.

    Raises:
        DownloadError: it can't be had, or is not what it should be.
        DiskFullError: the disk has no room.
    """
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _download_lock(path.with_name(path.name + LOCK), on_wait):
            if not path.is_file():  # else another process has fetched it meanwhile
                _fetch(url, path, digest, on_progress)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            wanted = error.wanted if isinstance(error, WriteError) else None
            full = WriteError(error.errno, error.strerror or "", path, wanted)
            raise DiskFullError(f"{full}{_kept(path.with_name(path.name + PART))}") from error
        raise DownloadError(f"{path} can't be written ({error.strerror or error})") from error
    return path


def missing_files_message(missing: Sequence[RequiredFile]) -> str:
    """Return what is missing and how to bring it, for a machine without internet."""
    count = "1 file is" if len(missing) == 1 else f"{len(missing)} files are"
    lines = [f"{count} not on this machine"]
    for one in missing:
        hint = f"  ({one.hint})" if one.hint else ""
        lines += [f"  {one.what}, {size_in_words(one.size)}", f"    from  {one.url}", f"    to    {one.path}{hint}"]
    return "\n".join([*lines, HOW_TO_BRING])


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _download_lock(lock: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that one process at a time can hold."""
    held = locks.lock(lock)
    while True:
        with contextlib.suppress(Timeout):
            held.acquire(timeout=POLL_SECONDS)
            break
        on_wait()
    try:
        yield
    finally:
        held.release()


def _fetch(url: str, path: Path, digest: str | None, on_progress: Progress) -> None:
    """Fetch what is missing, try after try, and give the file its name."""
    part, note = path.with_name(path.name + PART), path.with_name(path.name + NOTE)
    failures = 0
    while True:
        before = _size(part)
        try:
            if _try(url, part, note, on_progress):
                break
            reason = "the connection was cut"
        except requests.RequestException as error:
            reason = _reason(error)
        failures = 0 if _size(part) > before else failures + 1
        if failures == TRIES:
            raise DownloadError(f"{url} can't be fetched ({reason}){_kept(part)}")
        time.sleep(PAUSE_SECONDS * 2 ** max(failures - 1, 0))
    if digest is not None and not (found := sha256(part)).startswith(digest):
        part.unlink()
        note.unlink(missing_ok=True)
        raise DownloadError(
            f"{url} came damaged, or is another file by now: its SHA-256 is {found}, not {digest}...; it was deleted"
        )
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    note.unlink(missing_ok=True)


def _try(url: str, part: Path, note: Path, on_progress: Progress) -> bool:
    """Ask once for what is missing and write what comes; return whether the file is whole.

    Raises:
        requests.RequestException: it can be tried again.
        DownloadError: it can't.
    """
    known = _read_note(note, url)
    have = _size(part) if known is not None else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "finetune-sweeps"}
    if known is not None and have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENT_SECONDS)) as response:
        if response.status_code == 416:  # nothing after what is here: that is all, or it is no part of this file
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return True
            part.unlink(missing_ok=True)
            return False
        if response.status_code not in (200, 206):
            problem = f"{url} can't be fetched: the server answers {response.status_code} {response.reason}"
            if response.status_code in RETRY_STATUSES:
                raise requests.HTTPError(problem.split(": ", 1)[1])
            raise DownloadError(problem)
        source = _source(response)
        if response.status_code == 206 and not _goes_on(response, have, known, source):
            part.unlink(missing_ok=True)  # the file has changed: from its beginning, then
            return False
        start = have if response.status_code == 206 else 0
        _check_room(part, source.total, start)
        _note_source(note, url, source)
        missing = None if source.total is None else source.total - start
        with raising_write_error(part, missing), part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            on_progress(start, source.total)
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                start += len(chunk)
                on_progress(start, source.total)
    return source.total is None or start == source.total


def _source(response: requests.Response) -> RemoteFileInfo:
    """Return what the headers say of the whole file."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if response.status_code == 206:
        match = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
        total = int(match[1]) if match else None
    etag = response.headers.get("ETag", "")
    # A weak ETag promises the same meaning, not the same bytes (RFC 9110, section 13.1.5).
    return RemoteFileInfo(total, etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified"))


def _goes_on(response: requests.Response, have: int, known: RemoteFileInfo | None, source: RemoteFileInfo) -> bool:
    """Whether a partial answer is the rest of what is here."""
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-") and source == known


def _name_of(url: str) -> str:
    """Return what tells an address from others without telling it: it may be signed."""
    return hashlib.sha256(url.encode()).hexdigest()


def _note_source(note: Path, url: str, source: RemoteFileInfo) -> None:
    write_json(note, {"of": _name_of(url), "url": redact(url), **source._asdict()})


def _read_note(note: Path, url: str) -> RemoteFileInfo | None:
    """Return what the note says of the part, or None if it is not this address's, or damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted: dict[str, Any] | None = read_json(note)
        if noted is not None and noted["of"] == _name_of(url):
            return RemoteFileInfo(noted["total"], noted["validator"])
    return None


def _check_room(part: Path, total: int | None, have: int) -> None:
    """Raise DiskFullError if the rest does not fit on the disk."""
    missing, free = (total or 0) - have, shutil.disk_usage(part.parent).free
    if missing > free - SPARE_BYTES:
        raise DiskFullError(
            f"{part.parent} has {size_in_words(free)} free, and {size_in_words(missing)} are still to come (with "
            f"{size_in_words(SPARE_BYTES)} to spare). Make room there"
        )


def _kept(part: Path) -> str:
    """Return what is said of what has come so far, after what has kept the rest from coming."""
    size = _size(part)
    return f". {size_in_words(size)} of it are kept: the same command goes on from there" if size else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(error: requests.RequestException) -> str:
    """Return what went wrong without the stack of wrappers that requests puts around it."""
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection; is the clock right, is there a proxy?"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer; see HTTPS_PROXY"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError):
        return "no connection; is this machine online?"
    return str(error)


def size_in_words(count: float) -> str:
    """Return a number of bytes as GB or MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
