"""The error this package raises on purpose."""

from finetune.errors import UserError


class InputError(UserError):
    """What the user gave can't be analysed; the message says what, where, and how to mend it. Exit code 2."""
