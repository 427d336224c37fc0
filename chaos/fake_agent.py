"""An agent whose runs take milliseconds and need no torch: `python -m chaos.fake_agent SWEEP`, like agent.py."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agent
from finetune.config import Config, to_dict
from finetune.rundir import files, keys
from finetune.rundir.claim import hold_claim
from finetune.sweep.agents.training_api import TrainingApi
from finetune.system import documents


def run(config: Config, run_dir: Path, *, on_progress: Callable[[dict[str, Any]], None], **_: object) -> None:
    """Write the files of a real run that agents look at."""
    with hold_claim(run_dir):
        files.write_state(run_dir, "running")
        files.write_config(run_dir, to_dict(config), {"data_fingerprint": "data"})
        for epoch in range(1, config.epochs + 1):
            files.append_history(run_dir, {"epoch": epoch, "val/accuracy": 0.5})
            on_progress({"phase": "train", "epoch": float(epoch), "epochs": config.epochs, "val_accuracy": 0.5})
        documents.write_json(run_dir / keys.SUMMARY, {"state": "finished", "best/val_accuracy": 0.5})


if __name__ == "__main__":
    training_api = TrainingApi(
        "chaos.fake_agent:run",
        ["finetune.sweep.agents.local_agent", "agent"],
        lambda _: ("data", "weights"),
        lambda _: None,
    )
    sys.exit(agent.main(sys.argv[1:], training_api))
