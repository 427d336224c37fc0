"""Attention maps of the best run, drawn by another process, as this one never loads torch."""

import subprocess
import sys
from pathlib import Path


def draw_gradcam(run_dir: Path) -> str | None:
    """Write the run's `attention.zip`; return a sentence if that failed, or None."""
    command = [sys.executable, "-m", "finetune.attention", str(run_dir)]
    try:
        process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        return f"No attention maps: {error}."
    if process.returncode == 0:
        return None
    lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
    return f"No new attention maps of {run_dir.name}: {lines[-1].strip().rstrip('.')}."
