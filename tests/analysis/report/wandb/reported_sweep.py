"""A small finished sweep, with class names hostile to Markdown, for tests of its W&B report."""

from pathlib import Path

from finetune.rundir import keys
from finetune.system import documents
from tests.support.fabricate import fabricate_pictures, fabricate_run

SWEEP = """\
# Question: does it *help*
# to train | more?
#
# Runs: 8
program: agent.py
project: trials
method: grid
parameters:
  data: {value: demo}
  epochs: {value: 4}
  strategy: {values: [head, full]}
  lr: {values: [0.001, 0.01]}
  seed: {values: [0, 1]}
"""


def make_sweep(folder: Path, images: Path) -> None:
    """Write eight runs; val chooses the four at lr 0.01."""
    names = {"disc": "a|b", "square": "*c*", "stripes": "<d>"}
    labels = [(path, names[name]) for path, name in fabricate_pictures(images)]
    predictions = [(path, name, name if number % 3 else "a|b", 0.7) for number, (path, name) in enumerate(labels)]
    for strategy, level in (("head", 0.5), ("full", 0.7)):
        for lr in (0.001, 0.01):
            for seed in (0, 1):
                run = fabricate_run(
                    folder,
                    f"{strategy}-{lr:g}-{seed}",
                    strategy=strategy,
                    lr=lr,
                    seed=seed,
                    val=level + 10 * lr,
                    test=level + 10 * lr + seed / 100,
                    predictions=predictions,
                    provenance={"data_root": str(images), "classes": list(names.values())},
                )
                documents.write_json(
                    run / f"wandb-{run.name}.json", {"path": f"tester/trials/{run.name}", "sent": True}
                )
    (folder / keys.SWEEP).write_text(SWEEP)
