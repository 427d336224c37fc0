"""Lightning's Trainer with BackboneFinetuning, on the plain loop's network, loaders and rates."""

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.timer import Clock, peak_memory
from finetune.config import Config
from finetune.data.transforms import preprocessing
from finetune.resolve import resolve
from finetune.run.preflight import load_splits


class Unfreezing(BackboneFinetuning):  # type: ignore[misc]
    """BackboneFinetuning in several steps, as Lightning's documentation subclasses it.

    `train_bn` is about the frozen part. BackboneFinetuning itself goes by it in unfreezing alone, so that even with
    False the frozen batch-norms train; with True, its default, this freezes as it does.
    """

    def __init__(self, cuts: dict[int, int], backbone_lr: float, train_bn: bool) -> None:
        super().__init__(train_bn=train_bn)
        self.cuts, self.backbone_lr = cuts, backbone_lr  # epochs finished -> blocks frozen from then on

    def freeze_before_training(self, pl_module: "Module") -> None:
        self.freeze(pl_module.backbone[: self.cuts[0]], train_bn=self.train_bn)

    def finetune_function(self, pl_module: "Module", epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch in self.cuts and epoch > 0:
            earlier = [cut for start, cut in self.cuts.items() if start < epoch]
            self.unfreeze_and_add_param_group(
                pl_module.backbone[self.cuts[epoch] : earlier[-1]],
                optimizer,
                lr=self.backbone_lr,
                initial_denom_lr=1.0,
                train_bn=True,  # of what trains from now on
            )


class Module(LightningModule):  # type: ignore[misc]
    """The plain network as a LightningModule; notes the seconds of each epoch."""

    def __init__(self, network: plain.Network, config: Config, clock: Clock, steps: int) -> None:
        super().__init__()
        self.backbone, self.pool, self.head = network.blocks, network.pool, network.head
        self.settings, self.clock = config, clock
        self.multiplier = plain.make_multiplier(config, len(network.blocks), steps)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.right = 0
        self.rows: list[dict[str, Any]] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.backbone(images)))
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.settings
        parts = [(self.head, config.lr), (self.backbone, config.backbone_lr or config.lr)]
        groups = [
            {"params": [parameter for parameter in part.parameters() if parameter.requires_grad], "lr": rate}
            for part, rate in parts
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=config.weight_decay)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        for group in self.optimizers().param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * self.multiplier(None, self.global_step)
        loss: Tensor = self.criterion(self(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: ARG002
        self.right += int((self(batch[0]).argmax(dim=1) == batch[1]).sum())

    def on_train_epoch_start(self) -> None:
        self.clock.take()

    def on_validation_start(self) -> None:
        self.right = 0
        self.clock.lap("train")

    def on_validation_end(self) -> None:
        self.clock.lap("val")

    def on_train_epoch_end(self) -> None:
        self.clock.lap("train")
        seconds = {f"seconds/{part}": value for part, value in self.clock.take().items()}
        pictures = len(self.trainer.val_dataloaders.dataset)
        self.rows.append({"epoch": len(self.rows) + 1, **seconds, "val/accuracy": self.right / pictures})


def train(config: Config, train_bn: bool) -> dict[str, Any]:
    """Train `config`; return `epochs` with seconds/train, seconds/val and val/accuracy, and the peak memory.

    Args:
        train_bn: BackboneFinetuning's default, True, trains the frozen part's batch-norms; backward passes then go
            through all.

    Raises:
        UserError: data or weights do not fit.
    """
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    config = resolve(config)
    assert config.unfreeze is not None, "resolve() fills the schedule"
    device = plain.pick_device(config.device)
    splits = load_splits(config)
    to = preprocessing(config.backbone, config.weights, config.image_px)
    torch.manual_seed(config.seed)
    loaders = plain.make_loaders(splits, to, config, device)
    network = plain.build(config, len(splits.classes), to.crop_px)
    module = Module(network, config, Clock(device), len(loaders["train"]))
    count = len(network.blocks)
    cuts = {epoch: count - plain.trainable_at(config, epoch, count) for epoch, _ in config.unfreeze}
    trainer = Trainer(
        max_epochs=config.epochs,
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=1,
        callbacks=[Unfreezing(cuts, config.backbone_lr or config.lr, train_bn)] if cuts[0] else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loaders["train"], loaders["val"])
    return {"epochs": module.rows, **peak_memory(device)}
