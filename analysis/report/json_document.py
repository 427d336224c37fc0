"""report.json: what the report says, for programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.report.csv_files import pair_records, records
from analysis.report.sentences import BudgetOption, describe_verdict
from analysis.sources.sweep import Sweep
from analysis.tables.claims import Claim
from analysis.tables.comparison import Comparison
from analysis.tables.metadata import origin, versions
from analysis.tables.pairwise import PAIRS
from analysis.tables.replicates import replicate_kind
from analysis.tables.schema import COLUMNS, plain_value
from analysis.tables.verdict import Verdict
from finetune.system.atomic import write_atomic

SCHEMA = 1  # of report.json; rises when a key changes its meaning or goes


def json_document(
    sweep: Sweep,
    comparison: Comparison,
    result: Verdict,
    data: dict[str, Any],
    best: "pd.Series[Any]",
    notes: list[str],
) -> dict[str, Any]:
    """Return the content of report.json: plain values, None where there is nothing to tell."""
    left_out, one = sweep.left_out, replicate_kind(comparison.recipes["over"])
    return {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "data": data,
        "selection": f"recipe by mean val accuracy over {one}s; test is read at the epoch that val chose",
        "repeated_over": one,
        "answer": {**asdict(result), **asdict(describe_verdict(comparison, result))},
        "columns": COLUMNS,
        "strategies": records(comparison.strategies),
        "recipes": records(comparison.recipes),
        "pairs": pair_records(comparison.pairs),
        "pair_columns": PAIRS,
        "best_run": str(best["run"]),
        "runs": {"finished": len(sweep.finished), "left_out": len(left_out)},
        "left_out": [
            {"run": run, "state": state, "reason": plain_value(reason)}
            for run, state, reason in zip(left_out["run"], left_out["state"], left_out["reason"], strict=True)
        ],
        "notes": notes,
        "origin": origin(sweep),
        "versions": versions(),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write report.json; NaN, which is not JSON, is refused."""
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def claim_records(claims: list[Claim], setting: str) -> dict[str, Any]:
    """Return the claims for report.json."""
    return {"setting": setting, "checked": [asdict(claim) for claim in claims]}


def step_record(step: BudgetOption) -> dict[str, Any]:
    """Return a step of the recommendation for report.json."""
    return asdict(step)
