"""Causes of failed runs: the few that a user can do something about, and what to do about each."""

import errno
import re
from collections.abc import Iterator

from finetune import errors
from finetune.system.atomic import WriteError

CAUSES = {
    "memory": "lower batch_size, image_px or loader_workers, run fewer side by side, or free memory that others hold",
    "disk": "make room on the disk (or in the quota) that holds the runs, and check that it can be written to",
    "data": "repair the images that the message names, or leave them out",
    "network": "check that this machine reaches the internet, or download the file on another one",
    "divergence": "lower lr or backbone_lr first; then raise warmup_epochs, or set precision to fp32",
    "input": "fix in the sweep file, or in the flags, what the message names",
    "code": "a fault in the code or in a package: the log has the traceback",
}

# Errors of Python and of libraries by class name, parents included: torch and network libraries are not imported here.
_FOREIGN = {
    "OutOfMemoryError": "memory",
    "MemoryError": "memory",
    "ConnectionError": "network",
    "TimeoutError": "network",
    "HTTPException": "network",
    "gaierror": "network",
    "SSLError": "network",
}

_DISK_ERRNOS = "|".join(str(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
_TEXTS = {
    "memory": re.compile(
        rf"can't allocate memory|out of memory|ALLOC_FAILED|bad_alloc|\[Errno {errno.ENOMEM}\]"
        r"|[Bb]us error|shared memory|DataLoader worker .*killed by signal: Killed"
    ),
    # torch's own file writer does not say why it could not write.
    "disk": re.compile(rf"\[Errno ({_DISK_ERRNOS})\]|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"),
}

# Of several causes, such as those of a UserError that a failed download has led to, the first of these counts.
_ORDER = ("memory", "network", "disk", "divergence", "data", "input")


def cause_of(error: BaseException) -> str:
    """Return the cause of `error`, one of CAUSES, by it and the errors that it was raised from or during."""
    return _first(set().union(*(_causes(link) for link in _chain(error))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error itself, not one behind it, reports that memory ran out."""
    return "memory" in _causes(error)


def cause_of_log_line(line: str) -> str:
    """Return the cause of the last line of a log, such as `DataError: no images here`."""
    name = line.partition(":")[0].rpartition(".")[2]
    own = getattr(WriteError if name == WriteError.__name__ else getattr(errors, name, None), "cause", None)
    return _first(_causes_by_text(line) | {own or _FOREIGN.get(name, "code")})


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it was raised from, or during unless `from None` hid them."""
    visited: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in visited:
        visited.add(id(link))
        yield link
        link = link.__context__ if link.__cause__ is None and not link.__suppress_context__ else link.__cause__


def _causes(error: BaseException) -> set[str]:
    """Return the causes that a single error speaks of."""
    causes = _causes_by_text(str(error))
    if isinstance(own := getattr(error, "cause", None), str):
        return causes | {own}
    names = {parent.__name__ for parent in type(error).__mro__}
    if "BrokenPipeError" in names:  # a ConnectionError, but between two processes of this machine
        return causes
    return causes | {_FOREIGN[name] for name in names if name in _FOREIGN}


def _causes_by_text(text: str) -> set[str]:
    return {cause for cause, pattern in _TEXTS.items() if pattern.search(text)}


def _first(causes: set[str]) -> str:
    return next((cause for cause in _ORDER if cause in causes), "code")
