"""Causes of failure: what was raised, or what a log's last line says -> one of a few names."""

import errno
import socket
import ssl

import pytest
import torch

from finetune.errors import (
    ConfigError,
    DataError,
    DiskFullError,
    DivergedError,
    DownloadError,
    NotDownloadedError,
    TrainingError,
    WeightsError,
)
from finetune.rundir.failures import CAUSES, cause_of, cause_of_log_line


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", "last.pt")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "memory"),
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."), "memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "memory"),
        (full_disk(), "disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
        (OSError(errno.EROFS, "Read-only file system"), "disk"),
        (OSError(errno.EIO, "Input/output error"), "disk"),
        (DataError("a.png: can't be read as an image"), "data"),
        (DownloadError("no connection"), "network"),
        (NotDownloadedError("not here"), "network"),
        (DiskFullError("1 GB free"), "disk"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "network"),
        (TimeoutError("timed out"), "network"),
        (socket.gaierror(-2, "Name or service not known"), "network"),
        (ssl.SSLError(errno.EIO, "EOF occurred in violation of protocol"), "network"),
        (DivergedError("the loss is nan"), "divergence"),
        (ConfigError(["lr: -1"], "here"), "input"),
        (WeightsError("no such file"), "input"),
        (TrainingError("something else"), "code"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "code"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "code"),
        (KeyError("x"), "code"),
    ],
)
def test_an_error_has_a_cause(error: Exception, cause: str) -> None:
    """Each kind that users meet."""
    assert cause_of(error) == cause
    assert cause in CAUSES


@pytest.mark.parametrize(
    ("outer", "inner", "cause"),
    [
        (RuntimeError("no weights"), DownloadError("no connection"), "network"),
        (TrainingError("even 2 images do not fit"), torch.OutOfMemoryError("CUDA"), "memory"),
        (DataError("a.png can't be read"), OSError(errno.EIO, "Input/output error"), "disk"),
        (RuntimeError("unexpected"), full_disk(), "disk"),
        (DataError("no images"), KeyError("x"), "data"),
    ],
)
def test_the_error_behind_an_error_tells_more(outer: Exception, inner: Exception, cause: str) -> None:
    """Whether raised from it, or while it was handled; what the outer one says counts when nothing better is known."""
    outer.__cause__, outer.__context__ = None, inner
    outer.__suppress_context__ = False
    assert cause_of(outer) == cause
    outer.__cause__, outer.__context__ = inner, None
    assert cause_of(outer) == cause


def test_an_error_that_was_put_out_of_sight_does_not_count() -> None:
    """`raise ... from None` means that what came before is of no consequence."""
    error = KeyError("x")
    error.__context__ = full_disk()
    assert cause_of(error) == "disk"
    error.__cause__ = None  # what `from None` does
    assert cause_of(error) == "code"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("DataError: no images here", "data"),
        ("finetune.errors.DataError: a.png: can't be read", "data"),
        (
            "DownloadError: http://127.0.0.1/w.pth can't be downloaded (no connection; is this machine online?)",
            "network",
        ),
        ("ConfigError: 1 fault in the sweep", "input"),
        ("OSError: [Errno 28] No space left on device: 'last.pt'", "disk"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "memory"),
        ("epoch 3/10  train 0.5", "code"),
        ("its log is empty", "code"),
    ],
)
def test_the_last_line_of_a_log_has_a_cause(line: str, cause: str) -> None:
    """For runs that could not note it themselves."""
    assert cause_of_log_line(line) == cause
