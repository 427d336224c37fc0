"""`python -m finetune.data check`: what is wrong with the images, before a GPU hour is spent on them."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune.data import catalog
from finetune.data.check.classes import class_findings, unused_findings
from finetune.data.check.copies import copy_findings
from finetune.data.check.files import file_findings
from finetune.data.check.findings import LEVELS, Finding, SuggestedFix
from finetune.data.duplicates import exact_duplicates
from finetune.data.layout import DatasetLayout, inside, read_layout
from finetune.data.scan import FileInspection, inspect_files, save_scan, summarise
from finetune.data.splits import Splits, find_splits
from finetune.errors import DataError
from finetune.system.atomic import WriteError
from finetune.system.output import SafeConsole, count_text
from finetune.system.tables import write_table

SHOWN = 5  # images of a finding; --json and --fix-list have all
FIX_COLUMNS = ["path", "do", "to", "why"]
NAMES = {"error": ("wrong", "bold red"), "warning": ("warning", "yellow"), "note": ("note", "cyan")}


@dataclass(frozen=True)
class DataReport:
    """What a check comes to.

    Attributes:
        place: the folder, or the CSV file.
        fingerprint: of the data.
        pictures: how many were looked at.
        short_side: the smallest, the median and the largest short side of an image, in pixels.
        classes: split -> class -> images that can be decoded.
        findings: the worst first.
    """

    place: str
    fingerprint: str
    pictures: int
    short_side: tuple[int, int, int]
    classes: Mapping[str, Mapping[str, int]]
    findings: Sequence[Finding]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("data", metavar="DIR", help="a folder of images, a CSV file, or a name as in --data")
    parser.add_argument("--fix-list", type=Path, metavar="FILE", help="write what would mend it, as a CSV file, "
                        f"{','.join(FIX_COLUMNS)}; `split --without FILE` leaves out what it removes")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--split-seed", type=int, default=0, help="as in a run (default: %(default)s)")


def main(known: argparse.Namespace) -> int:
    """Print what is found; return 1 where something would make results wrong, else 0.

    Raises:
        UserError: there is no such data, or no such folder for the fix list.
        WriteError: the disk of the fix list is full, say.
    """
    report = check(known.data, known.split_seed)
    if known.fix_list is not None:
        _write_fixes(known.fix_list, report.findings)
    if known.json:
        print(json.dumps(asdict(report), indent=1))
    else:
        show(report, SafeConsole(highlight=False, soft_wrap=True))
        if known.fix_list is not None:
            print(f"what would mend it: {known.fix_list}")
    return int(any(finding.level == "error" for finding in report.findings))


def check(data: str, split_seed: int = 0) -> DataReport:
    """Look at every image of the data, and return what is found.

    Args:
        data: as in `Config.data`.
        split_seed: of the split where the data has none of its own.

    Raises:
        DataError: there is no such data, or its layout can't be told.
    """
    place = catalog.locate(data)
    layout = read_layout(place)
    fingerprint = catalog.fingerprint(place)
    looks = inspect_files(layout.root, layout.paths())
    survey = summarise(looks)
    save_scan(survey, len(looks), fingerprint)  # the runs that follow need not look again
    place_of = {
        inside(path, layout.root): (part, label)
        for part, by_class in layout.parts.items()
        for label, paths in by_class.items()
        for path in paths
    }
    findings: list[Finding] = []
    try:
        splits = find_splits(layout, split_seed, survey=survey)
    except DataError as error:
        findings.append(Finding("error", "layout", str(error)))
        counts = _counts_as_they_lie(layout, looks)
    else:
        place_of |= {path: (split, label) for path, label, split in splits.rows()}
        counts = _counts(splits)
        findings += [Finding("note", "splits", line) for line in splits.notes if not _is_told(line)]
    if data == catalog.INATURALIST:
        findings += [Finding("warning", "published", line) for line in catalog.count_mismatches(place)]
    decodable = [layout.root / path for path, look in looks.items() if look.why is None]
    exact = [[inside(path, layout.root) for path in group] for group in exact_duplicates(decodable)]
    findings += copy_findings(exact, survey.alike, place_of)
    findings += file_findings(looks, place_of)
    findings += class_findings(counts)
    if place.is_dir():
        findings += unused_findings(layout.root, looks.keys())
    sides = [min(one.size) for one in looks.values() if one.why is None] or [0]
    return DataReport(
        str(place), fingerprint, len(looks), (min(sides), int(median(sides)), max(sides)), counts,
        sorted(findings, key=lambda finding: LEVELS.index(finding.level)),
    )  # fmt: skip


def show(report: DataReport, console: Console) -> None:
    """Print a report: the classes, then what is found, with a few images each."""
    low, middle, high = report.short_side
    console.print(f"{report.place}: {count_text(report.pictures, 'image')}, data {report.fingerprint}", markup=False)
    console.print(f"short side: {low} to {high} pixels, median {middle}")
    console.print(_class_table(report.classes))
    for finding in report.findings:
        name, style = NAMES[finding.level]
        text = Text(f"{name}: ", style)
        text.append(finding.text, "default")
        console.print(text)
        for line in finding.pictures[:SHOWN]:
            console.print(f"    {line}", markup=False)
        if len(finding.pictures) > SHOWN:
            console.print(f"    and {len(finding.pictures) - SHOWN:,} more")
        if finding.mend:
            console.print(f"  {finding.mend}", markup=False)
    numbers = Counter(finding.level for finding in report.findings)
    wrong = numbers["error"]
    verdict = f"{count_text(wrong, 'thing')} would make results wrong" if wrong else "nothing that makes results wrong"
    console.print(f"{verdict}; {count_text(numbers['warning'], 'warning')}, {count_text(numbers['note'], 'note')}")


def _class_table(classes: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for split in classes:
        table.add_column(split or "pictures", justify="right")
    labels = sorted({label for by_class in classes.values() for label in by_class})
    for label in labels:
        table.add_row(Text(label), *(f"{by_class.get(label, 0):,}" for by_class in classes.values()))
    table.add_row("all", *(f"{sum(by_class.values()):,}" for by_class in classes.values()), style="bold")
    return table


def _counts(splits: Splits) -> dict[str, dict[str, int]]:
    found = Counter((split, label) for _, label, split in splits.rows())
    return {name: {label: found[name, label] for label in splits.classes} for name in ("train", "val", "test")}


def _counts_as_they_lie(layout: DatasetLayout, looks: Mapping[str, FileInspection]) -> dict[str, dict[str, int]]:
    return {
        part: {
            label: sum(looks[inside(path, layout.root)].why is None for path in paths)
            for label, paths in by_class.items()
        }
        for part, by_class in layout.parts.items()
    }


def _is_told(line: str) -> bool:
    """Whether a sentence on the splits is one that a finding tells with more detail."""
    return line.startswith(("warning:", "left out,", "so many images"))


def _write_fixes(file: Path, findings: Sequence[Finding]) -> None:
    """Write what would mend each file once, for the worst reason."""
    fixes: dict[str, SuggestedFix] = {}
    for finding in findings:
        for fix in finding.fixes:
            fixes.setdefault(fix.path, fix)
    try:
        write_table(file, FIX_COLUMNS, ((fix.path, fix.do, fix.to, fix.why) for fix in fixes.values()))
    except WriteError:
        raise
    except OSError as error:
        raise DataError(f"--fix-list: {file} can't be written ({error.strerror})") from error
