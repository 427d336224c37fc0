"""report.json: the results for programs."""

import json
from dataclasses import asdict
from typing import Any

from analysis.report.csv_files import pair_records, records
from analysis.report.sentences import budget_options, data_size_record, describe_verdict, recommendation_facts
from analysis.tables.analysis import Analysis
from analysis.tables.metadata import origin_facts, package_versions
from analysis.tables.pairwise import PAIRS
from analysis.tables.schema import COLUMNS, plain_value

SCHEMA = 1  # of report.json; rises when a key is removed or changes its meaning


def json_document(analysis: Analysis) -> dict[str, Any]:
    """Return the content of report.json: plain values, None for missing ones."""
    comparison, verdict, sweep = analysis.comparison, analysis.verdict, analysis.sweep
    left_out = sweep.left_out
    return {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "data": analysis.data,
        "selection": (
            f"recipe: highest mean val accuracy over {analysis.replicate}s; "
            "checkpoint: best epoch on val; test: evaluated once per run, with that checkpoint"
        ),
        "repeated_over": analysis.replicate,
        "answer": {**asdict(verdict), **asdict(describe_verdict(comparison, verdict))},
        "columns": COLUMNS,
        "strategies": records(comparison.strategies),
        "recipes": records(comparison.recipes),
        "pairs": pair_records(comparison.pairs),
        "pair_columns": PAIRS,
        "best_run": str(analysis.best["run"]),
        "runs": {"finished": len(sweep.finished), "left_out": len(left_out)},
        "left_out": [
            {"run": run, "state": state, "reason": plain_value(reason)}
            for run, state, reason in zip(left_out["run"], left_out["state"], left_out["reason"], strict=True)
        ],
        "notes": list(analysis.notes),
        "origin": origin_facts(sweep),
        "versions": package_versions(),
        "claims": {"setting": analysis.claims_setting, "checked": [asdict(claim) for claim in analysis.claims]},
        "card": {
            "facts": recommendation_facts(comparison, verdict, analysis.data),
            "by_budget": [asdict(option) for option in budget_options(comparison)],
            "by_size": [data_size_record(size) for size in analysis.sizes],
        },
    }


def json_text(document: dict[str, Any]) -> str:
    """Return the text of report.json. Raises ValueError for NaN, which is not JSON."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
