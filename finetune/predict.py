"""A finished run on new pictures: `python -m finetune.predict RUN IMAGES_OR_FOLDERS... [--csv FILE]`.

The run's own preprocessing and class names are used. RUN is a run directory or a checkpoint file.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

from finetune import record
from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, DataError, UserError
from finetune.flags import fail
from finetune.writing import WriteError

BATCH_SIZE = 64
COLUMNS = ["path", "prediction", "confidence"]
Row = tuple[str, str, float]  # path as given, class name, its probability


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the picture files that the arguments name: files as given, folders searched through.

    Raises:
        DataError: something named does not exist, or no picture was found.
    """
    from finetune.data.layout import find_pictures

    missing = [argument for argument in arguments if not Path(argument).exists()]
    if missing:
        raise DataError(f"no such file or folder: {', '.join(missing)}")
    paths = [Path(argument) for argument in arguments]
    found = [picture for path in paths for picture in ([path] if path.is_file() else find_pictures(path))]
    if not found:
        raise DataError(f"no pictures in {', '.join(arguments)}")
    return found


def predict_images(checkpoint: Path, paths: Sequence[Path], unreadable: list[str]) -> Iterator[Row]:
    """Yield a row for each picture that can be read, in order; add a line for each other one to `unreadable`.

    Raises:
        UserError: the checkpoint can't be used.
    """
    import torch

    from finetune.checkpoint import load_checkpoint, rebuild
    from finetune.data.reading import read_picture
    from finetune.data.transforms import eval_transform, normalise, stack, to_base

    model, to, classes = rebuild(load_checkpoint(checkpoint))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device).to(memory_format=torch.channels_last)
    transform = eval_transform(to)
    for start in range(0, len(paths), BATCH_SIZE):
        names, images = [], []
        for path in paths[start : start + BATCH_SIZE]:
            try:
                images.append(transform(to_base(read_picture(path), to)))
                names.append(str(path))
            except DataError as error:
                unreadable.append(str(error))
        if not images:
            continue
        with torch.inference_mode():
            batch = normalise(stack(images).to(device), to)
            confidence, label = model(batch).float().softmax(dim=1).max(dim=1)
        yield from zip(names, [classes[index] for index in label.tolist()], confidence.tolist(), strict=True)


def find_checkpoint(run: Path) -> Path:
    """Return the checkpoint that val chose, given a run directory or a checkpoint file.

    Raises:
        UserError: there is none.
    """
    if run.is_dir():
        if not (run / record.BEST).is_file():
            if (run / record.SUMMARY).is_file():
                raise UserError(
                    f"{run}: its weights were not kept ({record.BEST} is gone: keep: none, or freed by finetune.gc)"
                )
            raise UserError(f"{run}: holds no {record.BEST}; is it a run directory, and has an epoch been finished?")
        return run / record.BEST
    return run


def main(arguments: list[str]) -> int:
    """Predict, print or write the rows; return the exit code: 1 when a picture was unreadable, 2 on bad input."""
    parser = argparse.ArgumentParser("python -m finetune.predict", description="Name what is on pictures.")
    parser.add_argument("run", type=Path, help="a run directory, or a checkpoint file such as best.pt")
    parser.add_argument("images", nargs="+", help="picture files and folders, in any mix")
    parser.add_argument("--csv", type=Path, help=f"write {', '.join(COLUMNS)} to this file instead of the terminal")
    given = parser.parse_args(arguments)
    unreadable: list[str] = []
    try:
        checkpoint, paths = find_checkpoint(given.run), find_images(given.images)
        if given.csv is not None and not given.csv.parent.is_dir():
            raise UserError(f"--csv: the folder {given.csv.parent} does not exist")
        rows = track(
            predict_images(checkpoint, paths, unreadable),
            total=len(paths),
            description="predicting",
            disable=not sys.stderr.isatty() or given.csv is None,
        )
        lines = ([path, prediction, f"{confidence:.4f}"] for path, prediction, confidence in rows)
        if given.csv is None:
            csv.writer(sys.stdout).writerow(COLUMNS)
            csv.writer(sys.stdout).writerows(lines)
        else:
            record.write_table(given.csv, COLUMNS, lines)
    except UserError as error:
        return fail(error, EXIT_BAD_INPUT)
    except WriteError as error:
        return fail(error, EXIT_FAILED)
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    if given.csv is not None:
        print(f"{len(paths) - len(unreadable)} pictures, see {given.csv}")
    return EXIT_FAILED if unreadable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
