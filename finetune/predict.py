"""Predict on new images: `python -m finetune.predict RUN|best IMAGES_OR_FOLDERS... [--csv FILE]`.

Uses the run's own preprocessing, class names and temperature: of predictions with a confidence of 80%, about 80% are
right on images like those it was trained on. Rows are written as they are made: memory does not grow with the number
of images.
"""

import argparse
import csv
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import EXIT_FAILED, DataError, UserError
from finetune.rundir import find
from finetune.system.output import result_command
from finetune.system.progress_bar import track
from finetune.system.tables import escape_cell, write_table

logger = logging.getLogger("finetune.predict")  # run as __main__

if TYPE_CHECKING:
    from finetune.inference.prediction_page import PageContent
    from finetune.inference.predictor import Prediction

COLUMNS = ["path", "prediction", "confidence"]
HTML_LIMIT = 500


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the image files that the arguments name: files as given, folders searched.

    Raises:
        DataError: something named does not exist, or no image was found.
    """
    from finetune.data.folder_walk import find_images

    missing = [argument for argument in arguments if not Path(argument).exists()]
    if missing:
        raise DataError(f"no such file or folder: {', '.join(missing)}")
    paths = [Path(argument) for argument in arguments]
    found = [image for path in paths for image in ([path] if path.is_file() else find_images(path))]
    if not found:
        raise DataError(f"no images in {', '.join(arguments)}")
    return found


def columns(top: int) -> list[str]:
    """Return the column names for `top` classes per image."""
    return [*COLUMNS, *(f"{name}_{place}" for place in range(2, top + 1) for name in COLUMNS[1:])]


def readable(path: Path) -> str:
    """Return a path as text; bytes in it that are no UTF-8 are shown as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@result_command
def main(arguments: list[str]) -> int:
    """Predict, print or write the rows; return the exit code: 1 when an image was unreadable, 2 on bad input."""
    args = _parser().parse_args(arguments)
    checkpoint, paths = find.find_checkpoint(args.run), find_images(args.images)
    _check_files(args)

    from finetune.inference.prediction_page import SHOWN_TOP, PageContent, write_page
    from finetune.inference.predictor import load_trained, predict_files

    trained = load_trained(checkpoint)
    top = min(args.top, len(trained.classes))
    if top < args.top:
        logger.info(f"--top {args.top}: there are {top} classes; all of them are listed")
    page = PageContent(args.html_limit) if args.html is not None else None
    ranks = top if page is None else min(max(top, SHOWN_TOP), len(trained.classes))
    unreadable: list[str] = []
    predictions = predict_files(trained, paths, ranks, unreadable)
    rows = _rows(track(predictions, len(paths), "predicting", hidden=not (args.csv or args.html)), top, page)
    if args.csv is not None:
        write_table(args.csv, columns(top), rows)
    elif page is None:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(columns(top))
        lines.writerows(map(escape_cell, row) for row in rows)
    else:
        deque(rows, maxlen=0)
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    if page is not None:
        write_page(args.html, page, trained.run_id, trained.temperature if trained.calibrated else None, unreadable)
    written = [str(file) for file in (args.csv, args.html) if file is not None]
    if written:
        print(f"{len(paths) - len(unreadable)} images, see {' and '.join(written)}")
    return EXIT_FAILED if unreadable else 0


def _rows(found: "Iterable[Prediction]", top: int, page: "PageContent | None") -> Iterator[list[str]]:
    """Yield a row for each answer, which is shown to the page, too."""
    for answer in found:
        if page is not None:
            page.add(answer)
        ranked = (cell for name, confidence in answer.ranked[:top] for cell in (name, f"{confidence:.4f}"))
        yield [readable(answer.path), *ranked]


def _check_files(args: argparse.Namespace) -> None:
    """Refuse places that can't be written to, before any work is done."""
    for flag, file in (("--csv", args.csv), ("--html", args.html)):
        if file is not None and not file.parent.is_dir():
            raise UserError(f"{flag}: the folder {file.parent} does not exist")
        if file is not None and file.is_dir():
            raise UserError(f"{flag}: {file} is a folder; name a file")
    if args.csv is not None and args.csv == args.html:
        raise UserError(f"--csv and --html: both name {args.csv}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m finetune.predict", description="Classify images.")
    parser.add_argument("run", metavar="RUN", help=find.HELP)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files and folders, in any mix")
    parser.add_argument("--csv", type=Path, metavar="FILE", help=f"write {', '.join(COLUMNS)} to this file")
    parser.add_argument(
        "--top", type=_count, default=1, metavar="K", help="list the K most likely classes (default: 1)"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write one offline page with the images, least confident first"
    )
    parser.add_argument(
        "--html-limit",
        type=_count,
        default=HTML_LIMIT,
        metavar="N",
        help="images on the page, the least confident ones; each takes about 8 kB (default: %(default)s)",
    )
    return parser


def _count(text: str) -> int:
    """Read a number of things; argparse turns the error into a message and exit code 2."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
