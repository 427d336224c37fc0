"""The error that the analysis raises on purpose."""

from finetune.errors import UserError


class InputError(UserError):
    """The user's input can't be analysed; the message says what, where, and how to fix it. Exit code 2."""
