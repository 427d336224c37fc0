"""`python -m finetune.data split`: writes the splits to a CSV file that can be edited and used as data."""

import argparse
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

from finetune.data import catalog
from finetune.data.groups import add_group_by
from finetune.data.layout import read_layout
from finetune.data.scan import load_or_scan
from finetune.data.splits import find_splits
from finetune.errors import UserError
from finetune.rundir import keys
from finetune.system.tables import read_table, write_table

NAME = keys.SPLITS  # what runs write of the same columns can be used as data, too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("data", metavar="DATA", help="a folder of images, or as in --data")
    parser.add_argument("--split-seed", type=int, default=0, help="as in a run (default: %(default)s)")
    parser.add_argument("--folds", type=int, metavar="K", help="split the images into K parts; needs --fold")
    parser.add_argument("--fold", type=int, metavar="N", help="which of them is left out of training, from 0 on")
    add_group_by(parser)
    parser.add_argument("--without", type=Path, metavar="FILE", help="a fix list of `check`: leave out what it removes")
    parser.add_argument("--out", type=Path, help=f"in the folder of the images (default: {NAME} there)")


def main(options: argparse.Namespace) -> int:
    """Write the file, print its counts, and return the exit code.

    Raises:
        UserError: the data can't be split, or --out is not in the images' folder.
    """
    if (options.folds is None) != (options.fold is None):
        raise UserError("--folds and --fold go together, such as --folds 5 --fold 0")
    if options.folds is not None and not 0 <= options.fold < options.folds >= 2:
        raise UserError(
            f"--fold must be one of 0 to {options.folds - 1} with --folds {options.folds}, which is at least 2"
        )
    place = catalog.locate(options.data)
    layout = read_layout(place, options.group_by)
    scan = load_or_scan(layout.root, layout.paths(), catalog.fingerprint(place))
    if options.without is not None:
        scan = replace(scan, unreadable={**scan.unreadable, **_removed(options.without, layout.root)})
    splits = find_splits(layout, options.split_seed, options.folds, options.fold, scan)
    out = (options.out or layout.root / NAME).expanduser().absolute()
    if out.suffix.lower() != ".csv" or out.parent.resolve() != layout.root.resolve():
        raise UserError(f"--out: {out} must be a .csv file in {layout.root}, as its paths start from where it lies")
    write_table(out, *splits.table())
    counts = Counter(split for _, _, split in splits.rows())
    print(f"{out}: {', '.join(f'{count:,} {split}' for split, count in counts.items())}")
    for line in splits.notes:
        print(f"  {line}")
    print(f"use it as data: --data {shlex.quote(str(out))} (for a sweep, --set data=...)")
    return 0


def _removed(file: Path, root: Path) -> dict[str, str]:
    """Return path -> reason for the images that a fix list removes.

    Raises:
        UserError: it is no fix list, or belongs to other data.
    """
    try:
        rows = read_table(file)
    except (OSError, ValueError) as error:
        raise UserError(f"--without: {file} can't be read ({error})") from error
    removed = {row["path"]: row["why"] for row in rows if row.keys() >= {"path", "do", "why"} and row["do"] == "remove"}
    foreign = [path for path in removed if not (root / path).exists() and not (root / path).is_symlink()]
    if foreign or (rows and not rows[0].keys() >= {"path", "do", "why"}):
        fault = f"{foreign[0]} does not lie in {root}" if foreign else "it has no columns path, do, why"
        raise UserError(f"--without: {file} is no fix list of this data: {fault}")
    return removed
