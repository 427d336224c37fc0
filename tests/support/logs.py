"""The package's log in tests: each line as it comes."""

import contextlib
import logging
from collections.abc import Callable, Iterator


class _Handler(logging.Handler):
    def __init__(self, take: Callable[[str], object]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.getMessage())


@contextlib.contextmanager
def each_log_line(take: Callable[[str], object]) -> Iterator[None]:
    """Call `take` with every line that the package logs within the block; what it raises goes to whoever logs."""
    logger = logging.getLogger("finetune")
    handler, level = _Handler(take), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
