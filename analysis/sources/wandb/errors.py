"""Errors of a W&B server and of its client, as messages that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from analysis.errors import InputError
from finetune.system.atomic import WriteError

CALLS_VARIABLE = "FINETUNE_WANDB_CALLS_A_MINUTE"


class FetchError(InputError):
    """The sweep can't be fetched; the message says why, `advice` how to fix it ("" if there is nothing to add)."""

    advice: str = ""


class NoLoginError(FetchError):
    """Nobody is logged in to the server."""

    advice = (
        "To fetch it: log in with `wandb login`, or set WANDB_API_KEY (and WANDB_BASE_URL for a server of your own)."
    )


class SwitchedOffError(FetchError):
    """WANDB_MODE switches W&B off."""

    advice = "To fetch it: unset WANDB_MODE."


class NoSweepError(FetchError):
    """The server has no such sweep for this account."""


class ChangedError(Exception):
    """A downloaded file differs from its entry in the list of files."""


@contextmanager
def fetch_errors(url: str) -> Iterator[None]:
    """Turn every error of wandb into a FetchError; errors of the local disk pass unchanged."""
    try:
        yield
    except (InputError, WriteError):
        raise
    except Exception as error:
        fetch_error = FetchError(describe(error, url))
        if _status(error) == 0:
            fetch_error.advice = f"Try again later, or check WANDB_BASE_URL ({url})."
        raise fetch_error from error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of wandb, 0 if there was no answer, None for other errors."""
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WandbApiFailedError):
            return 0 if cause.response is None else int(cause.response.http_status)
        cause = cause.__cause__ or getattr(cause, "exc", None)
    return 0 if isinstance(error, ConnectionError | TimeoutError) else None


def is_transient(error: Exception) -> bool:
    """Whether a later request may succeed; wandb itself retries only within its timeout."""
    status = _status(error)
    return status is not None and (status in (0, 408, 429) or status >= 500)


def is_retryable(error: Exception) -> bool:
    """Whether to retry. A file that changes concerns one run only, so it is not a transient error of the server."""
    return isinstance(error, ChangedError) or is_transient(error)


def describe(error: BaseException, url: str) -> str:
    """Return the meaning of an error of wandb, on one line."""
    status, text = _status(error), _one_line(error)
    if "HTTP 429" in text:
        return f"W&B ({url}) says that there were too many requests. Try later, or set {CALLS_VARIABLE} lower."
    if status == 0:
        return f"W&B ({url}) does not answer."
    if status in (401, 403):
        return f"W&B ({url}) refuses ({status}): this login may not see it."
    return text if isinstance(error, OSError) else f"W&B ({url}): {text}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
