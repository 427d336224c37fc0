"""model_card.md: what a user of the best run's network must know.

After Mitchell et al., "Model Cards for Model Reporting", arXiv 1810.03993; the head of the file is what Hugging Face's
hub reads (huggingface.co/docs/hub/model-cards).
"""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.errors import InputError
from analysis.formatting import accuracy_interval, format_duration, format_gflops, format_quantity, percent
from analysis.report.markdown import inline_code, markdown_text
from analysis.report.shell import recorded_command, shell_command
from analysis.tables.analysis import Analysis
from analysis.tables.per_class import reliability
from finetune.config import TIMM_PREFIX
from finetune.rundir.find import WORD
from finetune.system.output import one_line

UNKNOWN = "not recorded"


def model_card(analysis: Analysis) -> str:
    """Return the card as Markdown: what the network is, how accurate, how it was trained, how to use it, its limits."""
    best, data = analysis.best, analysis.data
    backbone, licence = str(best.get("backbone")), best.get("provenance/weights_license")
    library = "timm" if backbone.startswith(TIMM_PREFIX) else "torchvision"
    head = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "base_model": f"{library}/{backbone.removeprefix(TIMM_PREFIX)}",
        **({"license": licence} if isinstance(licence, str) else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": str(best["run"]), "results": [_result(best, data)]}],
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        f"# {markdown_text(str(best['run']))}\n",
        _summary(best, data),
        _intended_use(data),
        _evaluation(analysis),
        _training(best, data),
        _usage(best),
        _limits(analysis),
    ]
    return "\n".join(parts)


def _result(best: "pd.Series[Any]", data: dict[str, Any]) -> dict[str, Any]:
    numbers = [("accuracy", best["test/accuracy"]), ("f1", best["test/macro_f1"])]
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": data["name"], "type": "folder", "split": "test"},
        "metrics": [{"type": name, "value": round(float(value), 4)} for name, value in numbers if pd.notna(value)],
    }


def _summary(best: "pd.Series[Any]", data: dict[str, Any]) -> str:
    classes = ", ".join(markdown_text(name) for name in data["classes"]) or UNKNOWN
    synthetic = " The images are synthetic, drawn by a program." if data["synthetic"] else ""
    backbone, weights = (str(best.get(name)) for name in ("backbone", "weights"))
    return (
        f"{markdown_text(backbone)} that classifies images into {_class_count(data)} classes: {classes}."
        f"{synthetic} Weights before fine-tuning: {markdown_text(Path(weights).name)}{_license(best)}; strategy "
        f"{markdown_text(best['strategy'])}.\n"
    )


def _license(best: "pd.Series[Any]") -> str:
    """Return the license of the pretrained weights in brackets, or that it is not known; "" from scratch."""
    if best["strategy"] == "scratch":
        return ""
    licence = best.get("provenance/weights_license")
    if not isinstance(licence, str):
        return " (license not known)"
    limit = ", which forbids commercial use of what is made from them" if "-nc" in licence else ""
    return f" (license {markdown_text(licence)}{limit})"


def _class_count(data: dict[str, Any]) -> str:
    return str(len(data["classes"]) or "some")


def _intended_use(data: dict[str, Any]) -> str:
    return (
        "## Intended use\n\n"
        f"Classifying images into its {_class_count(data)} classes, if they come from the same source as its training "
        "images. A person should check the least confident predictions, which `finetune.predict --html` lists "
        "first.\n"
    )


def _evaluation(analysis: Analysis) -> str:
    best, data = analysis.best, analysis.data
    row = analysis.comparison.arms.set_index("arm", drop=False).loc[best["arm"]]
    lines = [
        "## Evaluation\n",
        f"- This network: {percent(best['test/accuracy'])} of {_count(data['splits']['test'])} test images correct; "
        f"macro-F1 {percent(best['test/macro_f1'])}. "
        f"It was selected by val accuracy ({percent(best['best/val_accuracy'])}), not by test.",
        f"- Its recipe, over {row['over']}: {percent(row['test_accuracy_mean'])} ({accuracy_interval(row)}, 95%).",
    ]
    recall = best.get("test/recall")
    if isinstance(recall, dict) and recall:
        weakest = sorted(recall.items(), key=lambda item: item[1])[:3]
        recalls = ", ".join(f"{markdown_text(str(name))} {percent(share)}" for name, share in weakest)
        lines.append(f"- Classes with the lowest recall: {recalls}.")
    if pd.notna(best.get("temperature")) and pd.notna(best.get("test/ece")) and pd.notna(best.get("test/ece_scaled")):
        lines.append(
            f"- Expected calibration error on test: {best['test/ece'] * 100:.1f} points before temperature scaling, "
            f"{best['test/ece_scaled'] * 100:.1f} after (temperature {best['temperature']:.2f}, fitted on val; "
            f"`finetune.predict` and `finetune.export` apply it).{_perfect_sentence(analysis)}"
        )
    others = len(analysis.sweep.finished) - 1
    return "\n".join([*lines, f"- Compared with {others} other runs in the report beside this file.\n"])


def _perfect_sentence(analysis: Analysis) -> str:
    """Return what a perfectly calibrated network would show, or "" where the run has no probabilities."""
    try:
        calibration = reliability(analysis.best_dir, float(analysis.best["temperature"]))
    except InputError:
        return ""
    return f" Even a perfectly calibrated network shows about {calibration.perfect * 100:.1f} points on so few images."


def _training(best: "pd.Series[Any]", data: dict[str, Any]) -> str:
    splits = data["splits"]
    energy = best.get("energy_joules")
    energy_text = "not measured" if pd.isna(energy) else f"{energy / 3.6e6:.3g} kWh (of the whole device)"
    lines = [
        "## Training\n",
        f"- Data: {markdown_text(data['name'])}, {_count(splits['train'])} training, {_count(splits['val'])} val and "
        f"{_count(splits['test'])} test images, fingerprint {inline_code(data['fingerprint'] or UNKNOWN)}.",
        f"- Training: {format_duration(best['train_seconds'])} on "
        f"{_text(best.get('provenance/device'))}, {format_gflops(best['train_gflops'])}, energy {energy_text}.",
        f"- Parameters: {format_quantity(best['trainable_parameters'])} of {format_quantity(best['total_parameters'])} "
        "trainable in the last epoch.",
        f"- Commit {inline_code(_text(best.get('provenance/git_commit')))}, torch "
        f"{_text(best.get('provenance/versions/torch'))}.",
        f"- Command: {inline_code(recorded_command(best.get('provenance/command')) or UNKNOWN)}\n",
    ]
    return "\n".join(lines)


def _count(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"


def _text(value: object) -> str:
    """Return what a run recorded of its origin."""
    return markdown_text(value) if isinstance(value, str) and value else UNKNOWN


def _usage(best: "pd.Series[Any]") -> str:
    run = best["path"]
    predict = shell_command(
        "python", "-m", "finetune.predict", run, "IMAGES", "--csv", "predictions.csv", "--html", "predictions.html"
    )
    export = shell_command("python", "-m", "finetune.export", run, "--onnx", "model.onnx")
    calibrated = pd.notna(best.get("temperature"))
    confidence = "confidences are calibrated" if calibrated else "confidences are not calibrated, and often too high"
    return (
        f"## Usage\n\n    {one_line(predict)}\n    {one_line(export)}\n\n"
        "`predict` takes files and folders, respects EXIF orientation, and reports and skips files that it can't read; "
        f"{confidence}. Instead of the directory, `{WORD}` is the best run of the newest sweep. `export` writes one "
        "file that takes images in [0, 1] and returns probabilities: normalisation, temperature and softmax are "
        "inside, class names and preprocessing in its metadata. The file is kept only if its outputs "
        "agree with those of torch.\n"
    )


def _limits(analysis: Analysis) -> str:
    lines = [
        "## Limits\n",
        "- It predicts one of its classes for every image, also for an image that shows none of them.",
        f"- Its accuracy is known only as well as {_count(analysis.data['splits']['test'])} test images allow. They "
        "come from the same source as the training images; other cameras, places or times may be harder.",
        "- Do not use it for decisions about people, or where an error does harm, without a test for that purpose.",
    ]
    lines += [f"- {markdown_text(note)}" for note in analysis.notes]
    return "\n".join([*lines, ""])
