"""Why a run failed, sorted into the few causes that a user can do something about, and what to do about each."""

import errno
import re

CAUSES = {
    "memory": "lower batch_size, image_px or loader_workers, run fewer side by side, or free memory that others hold",
    "disk": "make room on the disk (or in the quota) that holds the runs, and see that it can be written to",
    "data": "repair the pictures that the message names, or take them out",
    "network": "see that this machine reaches the internet, or fetch the file on another one",
    "divergence": "lower lr or backbone_lr first; then raise warmup_epochs, or set precision to fp32",
    "input": "mend in the sweep file, or in the flags, what the message names",
    "code": "a fault in the code or in a package: the log has the traceback",
}

# By the names of exception classes, their parents' included, so that neither torch nor a network library is imported.
_NAMES = {
    "OutOfMemoryError": "memory",
    "MemoryError": "memory",
    "ConnectionError": "network",
    "TimeoutError": "network",
    "HTTPException": "network",
    "gaierror": "network",
    "SSLError": "network",
    "DownloadError": "network",
    "NotDownloadedError": "network",
    "DiskFullError": "disk",
    "WriteError": "disk",
    "DivergedError": "divergence",
    "DataError": "data",
    "UserError": "input",
    "ConfigError": "input",  # a log names the class alone
    "WeightsError": "input",
    "CorruptFileError": "disk",
}

_DISK_ERRORS = "|".join(str(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
_TEXTS = {
    "memory": re.compile(
        rf"can't allocate memory|out of memory|ALLOC_FAILED|bad_alloc|\[Errno {errno.ENOMEM}\]"
        r"|[Bb]us error|shared memory|DataLoader worker .*killed by signal: Killed"
    ),
    # torch's own file writer does not say why it could not write.
    "disk": re.compile(rf"\[Errno ({_DISK_ERRORS})\]|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"),
}

# Where an error has several, such as a UserError that a failed download has led to, the first of these.
_ORDER = ("memory", "network", "disk", "divergence", "data", "input")


def cause_of(error: BaseException) -> str:
    """Return which of CAUSES led to `error`, by it and the errors that it was raised from or during."""
    found = set()
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        found |= _causes({kind.__name__ for kind in type(link).__mro__}, str(link))
        link = link.__context__ if link.__cause__ is None and not link.__suppress_context__ else link.__cause__
    return _first(found)


def cause_of_log_line(line: str) -> str:
    """Return the cause that the last line of a log speaks of, such as `DataError: no pictures here`."""
    name = line.partition(":")[0].rpartition(".")[2]
    return _first(_causes({name}, line))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error itself, not one behind it, says that memory ran out."""
    return "memory" in _causes({kind.__name__ for kind in type(error).__mro__}, str(error))


def _causes(names: set[str], text: str) -> set[str]:
    by_text = {cause for cause, pattern in _TEXTS.items() if pattern.search(text)}
    if "BrokenPipeError" in names:  # a ConnectionError, but of two processes on this machine
        return by_text
    return by_text | {_NAMES[name] for name in names if name in _NAMES}


def _first(found: set[str]) -> str:
    return next((cause for cause in _ORDER if cause in found), "code")
