"""Names and keys of the files in a run directory and beside it.

In a run directory:

    config.yaml      every resolved field, and `provenance`: commit, versions, data fingerprint, weights hash, classes
    history.jsonl    one line per epoch, HISTORY_KEYS
    summary.json     written once, last, SUMMARY_KEYS; it exists only if the run is finished
    predictions.csv  one row per test image: path (inside the data folder), label, prediction, probability/<class>
    thumbnails.zip   small copies of the test images that the prediction grid shows (data/thumbnails.py)
    attention.zip    the same images with Grad-CAM overlays, if asked for (inference/gradcam.py)
    splits.csv       path, label, split of every image
    best.pt last.pt  the checkpoint with the best val accuracy; the last one, with all that a resume needs
    epoch-0001.pt    with `keep: every`, the checkpoint of each epoch
    previous.pt      the checkpoint before last.pt, in case that is damaged; deleted once the run is finished
    SHA256SUMS       checksums of the files that results rest on, written before the summary (integrity.py)
    NAME.damaged-N   a file that was found damaged and renamed; it can be deleted
    log.txt          what the run printed
    state.json       the state the run last reported (state, reason, cause)
    stop             asks the run to end after its epoch (stop_request.py)
    wandb-ID.json    what has been sent to the W&B run of this id (`sent`, `path`; tracking/mirror_process.py)
    claim-N.json     the process that runs it (claim.py); the newest one's modification time is the heartbeat

Beside the run directories of a sweep:

    sweep.yaml       the sweep file as it was run
    plan.json        the runs that the sweep asks for, and whether they race
    trials/N.json    the points that a random or Bayesian search has proposed (sweep/trials.py)
    forecast.json    what the sweep was expected to take (sweep/forecast/report.py)
    wandb.json       entity, project and sweep (the id) on the W&B server
"""

CONFIG, HISTORY, SUMMARY, PREDICTIONS = "config.yaml", "history.jsonl", "summary.json", "predictions.csv"
SPLITS, BEST, LAST, LOG, STATE = "splits.csv", "best.pt", "last.pt", "log.txt", "state.json"
THUMBNAILS, ATTENTION = "thumbnails.zip", "attention.zip"
PREVIOUS, SUMS, STOP = "previous.pt", "SHA256SUMS", "stop"
SWEEP, PLAN, REMOTE = "sweep.yaml", "plan.json", "wandb.json"  # beside the run directories
PROBABILITY = "probability/"  # prefix of the probability columns of PREDICTIONS

# Accuracies and shares are fractions in [0, 1]. `epoch` counts finished epochs: the first row has epoch 1.
HISTORY_KEYS = {
    "epoch": "epochs finished",
    "train/loss": "mean training loss of the epoch, label smoothing and, with balance weights, class weights included",
    "train/accuracy": "accuracy on the augmented training images, while training; with balance sampler, on the images "
    "as sampled, so that every class counts equally; with mixup or cutmix, by the label with the larger weight",
    "val/loss": "mean cross-entropy on val",
    "val/accuracy": "accuracy on val",
    "val/macro_f1": "mean over classes of F1 on val: every class counts equally, however rare",
    "val/min_recall": "the lowest recall of a class on val",
    "lr/head": "the head's rate at the end of the epoch",
    "lr/backbone": "the highest rate of a backbone block that trains at the end of the epoch, 0 when all are frozen",
    "trainable_share": "share of the backbone's blocks that train in this epoch",
    "cached_share": "share of the backbone's blocks whose output came from a cache and was not computed in this epoch",
    "energy_joules": "used by GPU and CPU packages in this epoch, other processes included; null: not measured",
    "epoch_seconds": "wall time of the epoch, the sum of these:",
    "seconds/cache": "filling caches that later epochs and other runs use",
    "seconds/loader": "waiting for batches, and bringing them to the device",
    "seconds/prefix": "forward passes of the frozen prefix, where activations are not cached",
    "seconds/suffix": "forward and backward passes of the trainable part, and the optimizer",
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
    "test/accuracy": "accuracy on test, read once, at the best epoch",
    "test/macro_f1": "mean over classes of F1 on test",
    "test/balanced_accuracy": "mean over classes of recall on test",
    "test/min_recall": "the lowest of these",
    "test/recall": "class -> its recall on test; classes without test images are left out",
    "test/loss": "mean cross-entropy on test",
    "temperature": "temperature that calibrates the confidences: divide logits by it; fitted on val at that epoch",
    "test/ece": "expected calibration error on test, in 15 bins",
    "test/ece_scaled": "expected calibration error on test at that temperature",
    "epochs": "epochs trained (fewer than configured after early stopping)",
    "epochs_to_80": "epochs until val accuracy first reached 0.8; null when it never did",
    "wall_seconds": "from the start of the run to its end, building, caches, val and test included; earlier "
    "attempts count with their epochs",
    "train_seconds": "sum of epoch_seconds over all attempts",
    "cache_seconds": "of these, for filling caches that other runs of the sweep use too",
    "images_per_second": "training images per second of loading and computing, without val and filling caches",
    "peak_memory_mb": "most memory of the run's process in MB, or of its GPU",
    "energy_joules": "sum of the epochs' energy_joules; null: not measured",
    "micro_batch": "images in one pass of the network; less than batch_size once memory ran out",
    "trainable_parameters": "parameters that train in the last epoch, head included",
    "total_parameters": "all parameters, head included",
    "forward_gflops": "forward pass of one image through all blocks, counted",
    "backward_gflops": "backward pass of one image through the trainable part, counted, mean over epochs",
    "train_gflops": "counted training cost: forward pass of all blocks, backward pass of the trainable part",
    "computed_gflops": "of these, without frozen blocks whose activations were cached (filling not counted)",
    "full_gflops": "training cost if every block trained from the first epoch on: the reference for freezing",
    "frozen/block_share": "share of blocks frozen, mean over epochs",
    "frozen/parameter_share": "share of the backbone's parameters frozen, mean over epochs",
    "frozen/flop_share": "share of the backbone's forward FLOPs in frozen blocks, mean over epochs",
}
