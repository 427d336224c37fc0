"""The error this package raises on purpose."""


class InputError(Exception):
    """What the user gave can't be analysed; the message says what, where, and how to mend it. Exit code 2."""
