"""`python -m finetune.data check`: finds problems in the images before a GPU spends an hour on them."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune.data import catalog
from finetune.data.check.classes import UNREADABLE_FOLDER, class_findings, unused_findings
from finetune.data.check.copies import copy_findings, group_findings
from finetune.data.check.files import file_findings
from finetune.data.check.findings import LEVELS, Finding, SuggestedFix
from finetune.data.duplicates import exact_duplicates
from finetune.data.groups import add_group_by
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
    """The result of a data check.

    Attributes:
        place: the folder, or the CSV file.
        images: the number of images checked.
        short_side: the smallest, the median and the largest short side of the images, in pixels.
        classes: split -> class -> images that can be decoded.
        findings: the worst first.
    """

    place: str
    fingerprint: str
    images: int
    short_side: tuple[int, int, int]
    classes: Mapping[str, Mapping[str, int]]
    findings: Sequence[Finding]

    def to_json(self) -> dict[str, Any]:
        """Return the report with the keys of the JSON output."""
        findings = [finding.to_json() for finding in self.findings]
        return {"pictures" if key == "images" else key: value for key, value in vars(self).items()} | {
            "findings": findings
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("data", metavar="DIR", help="a folder of images, a CSV file, or a name as in --data")
    parser.add_argument("--fix-list", type=Path, metavar="FILE", help="write suggested fixes to a CSV file, "
                        f"{','.join(FIX_COLUMNS)}; `split --without FILE` leaves out what it removes")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--split-seed", type=int, default=0, help="as in a run (default: %(default)s)")
    add_group_by(parser)


def main(options: argparse.Namespace) -> int:
    """Print the findings; return 1 if one of them would make results wrong, else 0.

    Raises:
        UserError: there is no such data, or no such folder for the fix list.
        WriteError: the fix list can't be written, for example because the disk is full.
    """
    report = check(options.data, options.split_seed, options.group_by)
    if options.fix_list is not None:
        _write_fixes(options.fix_list, report.findings)
    if options.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        show(report, SafeConsole(highlight=False, soft_wrap=True))
        if options.fix_list is not None:
            print(f"suggested fixes: {options.fix_list}")
    return int(any(finding.level == "error" for finding in report.findings))


def check(data: str, split_seed: int = 0, group_by: str | None = None) -> DataReport:
    """Decode every image of the data, and return the findings.

    Args:
        data: as in `Config.data`.
        split_seed: for data that has no splits of its own.
        group_by: as in `Config.group_by`.

    Raises:
        DataError: there is no such data, or its layout is ambiguous.
    """
    place = catalog.locate(data)
    layout = read_layout(place, group_by)
    fingerprint = catalog.fingerprint(place)
    inspections = inspect_files(layout.root, layout.paths())
    scan = summarise(inspections)
    save_scan(scan, len(inspections), fingerprint)  # so that runs need not scan again
    split_and_class = {
        inside(path, layout.root): (part, label)
        for part, by_class in layout.parts.items()
        for label, paths in by_class.items()
        for path in paths
    }
    findings: list[Finding] = []
    drawn: list[str] = []
    try:
        splits = find_splits(layout, split_seed, scan=scan)
    except DataError as error:
        findings.append(Finding("error", "layout", str(error)))
        counts = _counts_by_folder(layout, inspections)
    else:
        split_and_class |= {path: (split, label) for path, label, split in splits.rows()}
        counts = _counts(splits)
        drawn = _drawn_splits(layout)
        findings += [Finding("note", "splits", note) for note in splits.notes if not _is_redundant(note)]
    if data == catalog.INATURALIST:
        findings += [Finding("warning", "published", line) for line in catalog.count_mismatches(place)]
    decodable = [layout.root / path for path, image in inspections.items() if image.reason is None]
    exact = [[inside(path, layout.root) for path in group] for group in exact_duplicates(decodable)]
    findings += copy_findings(exact, scan.alike, split_and_class)
    findings += file_findings(inspections, split_and_class)
    findings += class_findings(counts, drawn)
    findings += UNREADABLE_FOLDER.findings(layout.unreadable_folders)
    findings += group_findings(split_and_class, layout.groups)
    if place.is_dir():
        findings += unused_findings(layout.root, inspections.keys())
    sides = [min(image.size) for image in inspections.values() if image.reason is None] or [0]
    return DataReport(
        str(place), fingerprint, len(inspections), (min(sides), int(median(sides)), max(sides)), counts,
        sorted(findings, key=lambda finding: LEVELS.index(finding.level)),
    )  # fmt: skip


def show(report: DataReport, console: Console) -> None:
    """Print a report: the classes, then the findings with a few images each."""
    low, median_side, high = report.short_side
    console.print(f"{report.place}: {count_text(report.images, 'image')}, data {report.fingerprint}", markup=False)
    console.print(f"short side: {low} to {high} pixels, median {median_side}")
    console.print(_class_table(report.classes))
    for finding in report.findings:
        name, style = NAMES[finding.level]
        text = Text(f"{name}: ", style)
        text.append(finding.text, "default")
        console.print(text)
        for line in finding.images[:SHOWN]:
            console.print(f"    {line}", markup=False)
        if len(finding.images) > SHOWN:
            console.print(f"    and {len(finding.images) - SHOWN:,} more")
        if finding.advice:
            console.print(f"  {finding.advice}", markup=False)
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


def _counts_by_folder(layout: DatasetLayout, inspections: Mapping[str, FileInspection]) -> dict[str, dict[str, int]]:
    return {
        part: {
            label: sum(inspections[inside(path, layout.root)].reason is None for path in paths)
            for label, paths in by_class.items()
        }
        for part, by_class in layout.parts.items()
    }


def _drawn_splits(layout: DatasetLayout) -> list[str]:
    """Return the splits that the data does not have: val alone beside train is used as test (see `find_splits`)."""
    if "test" in layout.parts:
        return [] if "val" in layout.parts else ["val"]
    return ["val"] if "val" in layout.parts else ["val", "test"]


def _is_redundant(note: str) -> bool:
    """Whether another finding says the same as this note on the splits, in more detail."""
    return note.startswith(("warning:", "left out,", "so many images"))


def _write_fixes(file: Path, findings: Sequence[Finding]) -> None:
    """Write one fix for each file, that of its worst finding."""
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
