"""Names of the files in a run directory, and the keys of its history and summary."""

CONFIG, HISTORY, SUMMARY, PREDICTIONS = "config.yaml", "history.jsonl", "summary.json", "predictions.csv"


SPLITS, BEST, LAST, LOG, STATE = "splits.csv", "best.pt", "last.pt", "log.txt", "state.json"


THUMBNAILS, ATTENTION = "thumbnails.zip", "attention.zip"


PREVIOUS, SUMS = "previous.pt", "SHA256SUMS"


SWEEP = "sweep.yaml"  # beside the run directories: the sweep file as it was run


PLAN = "plan.json"  # beside the run directories: the runs that the sweep asks for, and whether they race


REMOTE = "wandb.json"  # beside the run directories: entity, project and sweep (the id) on the W&B server


STOP = "stop"  # a file of this name in a run directory asks the run to end after its epoch, and test


PROBABILITY = "probability/"  # prefix of the probability columns of PREDICTIONS


# Accuracies and shares are fractions in [0, 1]; `epoch` counts finished epochs, so the first row has epoch 1.
HISTORY_KEYS = {
    "epoch": "epochs finished",
    "train/loss": "mean training loss of the epoch, label smoothing and, with balance weights, class weights included",
    "train/accuracy": "share of training pictures named rightly, as augmented, while training; with balance sampler, "
    "as they were drawn, so that every class counts the same; with mixup or cutmix, by the label that counts most",
    "val/loss": "mean cross-entropy on val",
    "val/accuracy": "share of val pictures named rightly",
    "val/macro_f1": "mean over classes of F1 on val: each class counts the same, however rare it is",
    "val/min_recall": "the lowest share of a class's val pictures that were named rightly",
    "lr/head": "the head's rate at the end of the epoch",
    "lr/backbone": "the highest rate of a backbone block that trains at the end of the epoch, 0 when all are frozen",
    "trainable_share": "share of the backbone's blocks that train in this epoch",
    "cached_share": "share of the backbone's blocks whose output came from a cache and was not computed in this epoch",
    "energy_joules": "used by GPU and CPU packages in this epoch, other processes included; null: not measured",
    "epoch_seconds": "wall time of the epoch; what it went into adds up to it:",
    "seconds/cache": "filling caches that later epochs and other runs use",
    "seconds/loader": "waiting for batches, and bringing them to the device",
    "seconds/prefix": "forward passes of the frozen part, where no cache holds them",
    "seconds/suffix": "forward and backward passes of what trains, and the optimiser",
    "seconds/val": "val",
    "seconds/save": "checkpoints and records of the epoch before",
    "seconds/other": "the rest",
}


SUMMARY_KEYS = {
    "state": "finished",
    "best/epoch": "epochs finished when val was best; this checkpoint is tested",
    "best/val_accuracy": "val accuracy at that epoch",
    "best/val_loss": "val loss at that epoch",
    "best/val_macro_f1": "macro-F1 on val at that epoch",
    "test/accuracy": "share of test pictures named rightly, read once, at the best epoch",
    "test/macro_f1": "mean over classes of F1 on test",
    "test/balanced_accuracy": "mean over classes of recall on test",
    "test/min_recall": "the lowest of these",
    "test/recall": "class -> share of its test pictures that were named rightly; classes without any are left out",
    "test/loss": "mean cross-entropy on test",
    "temperature": "what logits are to be divided by for confidences that can be believed; fitted on val at that epoch",
    "test/ece": "expected calibration error on test: how far confidence and accuracy lie apart, in 15 bins",
    "test/ece_scaled": "the same at that temperature",
    "epochs": "epochs trained (fewer than asked after early stopping)",
    "epochs_to_80": "epochs until val accuracy first reached 0.8; null when it never did",
    "wall_seconds": "from the start of the run to its end, building, caches, val and test included; of earlier "
    "attempts, their epochs",
    "train_seconds": "sum of epoch_seconds over all attempts",
    "cache_seconds": "of these, for filling caches that other runs of the sweep use too",
    "images_per_second": "training pictures a second of loading and computing; val and filling caches left out",
    "peak_memory_mb": "most memory of the run's process in MB, or of its GPU",
    "energy_joules": "sum of the epochs' energy_joules; null: not measured",
    "micro_batch": "pictures in one pass of the network; less than batch_size once memory ran out",
    "trainable_parameters": "parameters that train in the last epoch, head included",
    "total_parameters": "all parameters, head included",
    "forward_gflops": "the forward pass of one picture through all blocks, from a counter",
    "backward_gflops": "the backward pass of one picture through what trains, from a counter, mean over epochs",
    "train_gflops": "training cost by that counter: forward pass of all blocks, backward pass of what trains",
    "computed_gflops": "of these, without the frozen blocks where a cache held what they make (filling not counted)",
    "full_gflops": "the same when every block trains from the first epoch on: what freezing is compared with",
    "frozen/block_share": "share of blocks frozen, mean over epochs",
    "frozen/parameter_share": "share of the backbone's parameters frozen, mean over epochs",
    "frozen/flop_share": "share of the backbone's forward FLOPs in frozen blocks, mean over epochs",
}
