"""model_card.md: what somebody who gets the winning network must know of it.

After Mitchell et al., "Model Cards for Model Reporting", arXiv 1810.03993; the head of the file is what Hugging Face's
hub reads (huggingface.co/docs/hub/model-cards).
"""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.formatting import format_duration, format_gflops, format_interval, format_quantity, percent
from analysis.report.markdown import inline_code, markdown_text
from analysis.report.shell import command_for, recorded
from analysis.sources.sweep import Sweep
from analysis.tables.comparison import Comparison
from finetune.rundir.find import WORD
from finetune.system.atomic import write_atomic
from finetune.system.output import one_line

UNKNOWN = "not recorded"


def write_model_card(
    path: Path, sweep: Sweep, comparison: Comparison, content: dict[str, Any], best: "pd.Series[Any]"
) -> None:
    """Write the card of the best run."""
    write_atomic(path, model_card(sweep, comparison, content, best))


def model_card(sweep: Sweep, comparison: Comparison, content: dict[str, Any], best: "pd.Series[Any]") -> str:
    """Return the card as Markdown: what it is, how it was made, how well and for whom it works, what it cost.

    Args:
        content: of report.json.
        best: the run whose network this is.
    """
    data = content["data"]
    head = {
        "library_name": "torchvision",
        "pipeline_tag": "image-classification",
        "base_model": f"torchvision/{best.get('backbone')}",
        "metrics": ["accuracy"],
        "model-index": [{"name": str(best["run"]), "results": [_result(best, data)]}],
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        f"# {markdown_text(str(best['run']))}\n",
        _what(best, data),
        _for_what(data),
        _how_well(sweep, comparison, best, data),
        _made(best, data),
        _use(best),
        _limits(data, content),
    ]
    return "\n".join(parts)


def _result(best: "pd.Series[Any]", data: dict[str, Any]) -> dict[str, Any]:
    numbers = [("accuracy", best["test/accuracy"]), ("f1", best["test/macro_f1"])]
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": data["name"], "type": "folder", "split": "test"},
        "metrics": [{"type": name, "value": round(float(value), 4)} for name, value in numbers if pd.notna(value)],
    }


def _what(best: "pd.Series[Any]", data: dict[str, Any]) -> str:
    named = ", ".join(markdown_text(name) for name in data["classes"]) or "not recorded"
    synthetic = " The pictures are synthetic, drawn by a program." if data["synthetic"] else ""
    backbone, weights = (str(best.get(name)) for name in ("backbone", "weights"))
    return (
        f"{markdown_text(backbone)} that names {len(data['classes']) or 'some'} classes of pictures: {named}."
        f"{synthetic} Weights before fine-tuning: {markdown_text(Path(weights).name)}; strategy "
        f"{markdown_text(best['strategy'])}.\n"
    )


def _for_what(data: dict[str, Any]) -> str:
    return (
        "## What it is for\n\n"
        f"Telling which of its {len(data['classes']) or 'some'} classes a picture shows, where pictures come from the "
        "same source as those that it was trained on. A person should look at the answers that it is least sure of, "
        "which `finetune.predict --html` puts first.\n"
    )


def _how_well(sweep: Sweep, comparison: Comparison, best: "pd.Series[Any]", data: dict[str, Any]) -> str:
    row = comparison.strategies.set_index("strategy", drop=False).loc[best["strategy"]]
    lines = [
        "## How well it works\n",
        f"- This network: {percent(best['test/accuracy'])} of {_known(data['splits']['test'])} test pictures right; "
        f"macro-F1 {percent(best['test/macro_f1'])}. "
        f"It was chosen by val ({percent(best['best/val_accuracy'])}), not by test.",
        f"- Its recipe, over {row['over']}: {percent(row['test_accuracy_mean'])} "
        f"({format_interval(row['test_accuracy_low'], row['test_accuracy_high'])}, 95%).",
    ]
    recall = best.get("test/recall")
    if isinstance(recall, dict) and recall:
        weakest = sorted(recall.items(), key=lambda item: item[1])[:3]
        told = ", ".join(f"{markdown_text(str(name))} {percent(share)}" for name, share in weakest)
        lines.append(f"- Classes that it recognises least often: {told}.")
    if pd.notna(best.get("temperature")) and pd.notna(best.get("test/ece")) and pd.notna(best.get("test/ece_scaled")):
        lines.append(
            f"- Confidences are off by {best['test/ece'] * 100:.1f} points on average (expected calibration error), "
            f"{best['test/ece_scaled'] * 100:.1f} at temperature {best['temperature']:.2f}, which was fitted on val "
            "and which `finetune.predict` and `finetune.export` apply."
        )
    return "\n".join(
        [*lines, f"- Compared with {len(sweep.finished) - 1} other runs in the report beside this file.\n"]
    )


def _made(best: "pd.Series[Any]", data: dict[str, Any]) -> str:
    splits = data["splits"]
    energy = best.get("energy_joules")
    told = "not measured" if pd.isna(energy) else f"{energy / 3.6e6:.3g} kWh (the whole device's)"
    lines = [
        "## How it was made\n",
        f"- Data: {markdown_text(data['name'])}, {_known(splits['train'])} training, {_known(splits['val'])} val and "
        f"{_known(splits['test'])} test pictures, fingerprint {inline_code(data['fingerprint'] or UNKNOWN)}.",
        f"- Training: {format_duration(best['train_seconds'])} on "
        f"{_text(best.get('provenance/device'))}, {format_gflops(best['train_gflops'])}, energy {told}.",
        f"- Parameters: {format_quantity(best['trainable_parameters'])} of {format_quantity(best['total_parameters'])} "
        "trained at the end.",
        f"- Commit {inline_code(_text(best.get('provenance/git_commit')))}, torch "
        f"{_text(best.get('provenance/versions/torch'))}.",
        f"- Command: {inline_code(recorded(best.get('provenance/command')) or UNKNOWN)}\n",
    ]
    return "\n".join(lines)


def _known(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"


def _text(value: object) -> str:
    """Return what a run tells of its origin, or that it does not."""
    return markdown_text(value) if isinstance(value, str) and value else UNKNOWN


def _use(best: "pd.Series[Any]") -> str:
    run = best["path"]
    predict = command_for(
        "python", "-m", "finetune.predict", run, "PICTURES", "--csv", "predictions.csv", "--html", "predictions.html"
    )
    export = command_for("python", "-m", "finetune.export", run, "--onnx", "model.onnx")
    calibrated = pd.notna(best.get("temperature"))
    sure = "confidences are calibrated" if calibrated else "confidences are not calibrated, and often too high"
    return (
        f"## How to use it\n\n    {one_line(predict)}\n    {one_line(export)}\n\n"
        "`predict` takes files and folders, respects EXIF, and reports and passes over what it can't read; "
        f"{sure}. Instead of the directory, `{WORD}` is the best run of the newest sweep. `export` writes one file "
        "that takes pictures in [0, 1] and returns probabilities: normalisation, temperature and softmax are inside; "
        "class names and preprocessing are in its metadata. It is compared with torch before it is kept.\n"
    )


def _limits(data: dict[str, Any], content: dict[str, Any]) -> str:
    lines = [
        "## What it is not for\n",
        "- Pictures of other kinds: it names one of its classes for every picture, also for one that shows none "
        "of them.",
        f"- Finer claims than {_known(data['splits']['test'])} test pictures allow; they were drawn like the training "
        "pictures, and other cameras, places or times may be harder.",
        "- Decisions about people, or where an error does harm, without a test for that purpose.",
    ]
    lines += [f"- {markdown_text(note)}" for note in content["notes"]]
    return "\n".join([*lines, ""])
