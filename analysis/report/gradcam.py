"""Asking the best run's network where it looked, in a process of its own: this one never loads torch."""

import subprocess
import sys
from pathlib import Path


def draw_gradcam(run_dir: Path) -> str | None:
    """Write the run's `attention.zip`; return why that can't be done, or None."""
    command = [sys.executable, "-m", "finetune.attention", str(run_dir)]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        return f"No attention maps: {error}."
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.strip().splitlines() if line.strip()]
    why = said[-1].strip() if said else f"exit code {done.returncode}"
    return f"No new attention maps of {run_dir.name}: {why.rstrip('.')}."
