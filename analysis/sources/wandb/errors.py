"""What can go wrong between here and a W&B server, what it means, and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

from analysis.errors import InputError
from finetune.system.atomic import WriteError

CALLS_VARIABLE = "FINETUNE_WANDB_CALLS_A_MINUTE"


class FetchError(InputError):
    """The sweep can't be had from the server; the message says why.

    Attributes:
        advice: what to do about it, a sentence; empty where there is no more to say.
    """

    advice: str = ""


class NoLoginError(FetchError):
    """Nobody is logged in to the server."""

    advice = (
        "To fetch it: log in with `wandb login`, or set WANDB_API_KEY (and WANDB_BASE_URL for a server of your own)."
    )


class SwitchedOffError(FetchError):
    """The user keeps W&B off by WANDB_MODE."""

    advice = "To fetch it: unset WANDB_MODE."


class NoSweepError(FetchError):
    """The server has no such sweep for this account."""


class ChangedError(Exception):
    """A file that was downloaded is not the one that was listed before."""


@contextmanager
def fetch_errors(url: str) -> Iterator[None]:
    """Turn whatever the client raises into FetchError; a disk that is full here is no fault of the server's."""
    try:
        yield
    except (InputError, WriteError):
        raise
    except Exception as error:
        told = FetchError(why(error, url))
        if _status(error) == 0:
            told.advice = f"Try again later, or check WANDB_BASE_URL ({url})."
        raise told from error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of the client, 0 for no answer at all, None for another kind of error."""
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WandbApiFailedError):
            return 0 if cause.response is None else int(cause.response.http_status)
        cause = cause.__cause__ or getattr(cause, "exc", None)
    return 0 if isinstance(error, ConnectionError | TimeoutError) else None


def is_passing(error: Exception) -> bool:
    """Whether another try may help. The client itself tries again within its timeout; this is for what is longer."""
    status = _status(error)
    return status is not None and (status in (0, 408, 429) or status >= 500)


def is_worth_another_try(error: Exception) -> bool:
    """Whether to ask once more: of what passes, a file that changes is one run's matter, not the server's."""
    return isinstance(error, ChangedError) or is_passing(error)


def why(error: BaseException, url: str) -> str:
    """Return what an error of the client means, on one line."""
    status, text = _status(error), _one_line(error)
    if "HTTP 429" in text:
        return f"W&B ({url}) says that there were too many requests. Try later, or set {CALLS_VARIABLE} lower."
    if status == 0:
        return f"W&B ({url}) does not answer."
    if status in (401, 403):
        return f"W&B ({url}) refuses ({status}): not to be seen with this login."
    return text if isinstance(error, OSError) else f"W&B ({url}): {text}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
