"""report.json: the results for programs."""

import json
import math
from dataclasses import asdict
from typing import Any

from analysis.report.csv_files import pair_records, records, without_test
from analysis.report.sentences import budget_options, data_size_record, describe_verdict, recommendation_facts
from analysis.stats.tests import LEVEL
from analysis.tables.analysis import Analysis
from analysis.tables.metadata import origin_facts, package_versions
from analysis.tables.pairwise import PAIRS
from analysis.tables.schema import COLUMNS, plain_value

SCHEMA = 2  # of report.json; rises when a key is removed or changes its meaning
ALTERNATIVE = ("cost_seconds", "difference", "low", "high")  # of a cheaper arm


def json_document(analysis: Analysis) -> dict[str, Any]:
    """Return the content of report.json: plain values, None for missing ones."""
    comparison, verdict, sweep = analysis.comparison, analysis.verdict, analysis.sweep
    left_out = sweep.left_out
    return {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "data": analysis.data,
        "selection": (
            f"arm and recipe: highest mean val accuracy over {analysis.replicate}s; "
            "checkpoint: best epoch on val; test: evaluated once per run, with that checkpoint"
        ),
        "repeated_over": analysis.replicate,
        "answer": _answer(analysis),
        "verdict": verdict_record(analysis),
        "columns": COLUMNS,
        "strategies": records(comparison.arms),
        "recipes": records(without_test(comparison.recipes, analysis)),
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
        "claims": asdict(analysis.claims),
        "card": {
            "facts": recommendation_facts(comparison, verdict, analysis.data, origin_facts(sweep)),
            "by_budget": [asdict(option) for option in budget_options(comparison)],
            "by_size": [data_size_record(size) for size in analysis.sizes],
        },
    }


def _answer(analysis: Analysis) -> dict[str, Any]:
    verdict = analysis.verdict
    return {
        "verdict": verdict.status,
        "best": verdict.candidate,
        "level": [verdict.candidate, *verdict.level] if verdict.is_tested else [],
        **asdict(describe_verdict(analysis.comparison, verdict)),
    }


def verdict_record(analysis: Analysis) -> dict[str, Any]:
    """Return the verdict for programs: fractions, seconds, and None for what can't be computed."""
    verdict, fields = analysis.verdict, analysis.comparison.fields
    numbers = ("difference", "low", "high", "p", "p_holm", "df")
    return {
        "arms_by": list(fields.by),
        "tuned": list(fields.tuned),
        "candidate": verdict.candidate,
        "recommended": verdict.recommended,
        "margin": verdict.margin,
        "confidence": LEVEL,
        "sentence": describe_verdict(analysis.comparison, verdict).headline,
        "detectable": plain_value(verdict.detectable),
        "runs_per_arm": verdict.runs_per_arm,
        "test_images": None if math.isnan(verdict.test_images) else round(verdict.test_images),
        "alternatives": [
            {"arm": other.arm, **{name: plain_value(getattr(other, name)) for name in ALTERNATIVE}}
            for other in verdict.alternatives
        ],
        "differences": [
            {"arm": other.arm, **{name: plain_value(getattr(other, name)) for name in numbers}}
            for other in verdict.differences
        ],
    }


def json_text(document: dict[str, Any]) -> str:
    """Return the text of report.json. Raises ValueError for NaN, which is not JSON."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
