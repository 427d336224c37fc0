"""Lightning's Trainer with BackboneFinetuning, on the plain loop's network, loaders and rates."""

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.meters import LapTimer, peak_memory
from finetune.config import Config
from finetune.models.classifier import Classifier


class Unfreezing(BackboneFinetuning):  # type: ignore[misc]
    """BackboneFinetuning in several steps, as Lightning's documentation subclasses it.

    `train_bn` is about the frozen blocks. BackboneFinetuning itself reads it only when it unfreezes, so that even with
    False the frozen batch-norms train; with True, its default, this class freezes as it does.
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
                train_bn=True,  # of the blocks that train from now on
            )


class Module(LightningModule):  # type: ignore[misc]
    """The plain network as a LightningModule; notes the seconds of each epoch."""

    def __init__(self, network: Classifier, setup: plain.Setup, steps: int) -> None:
        super().__init__()
        self.network, self.backbone = network, network.blocks  # BackboneFinetuning looks for `backbone`
        self.settings, self.timer = setup.config, LapTimer(setup.device)
        self.multiplier = setup.rate_multiplier(network, steps)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=setup.config.label_smoothing)
        self.correct = 0

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.settings
        modules = [(self.network.head, config.lr), (self.backbone, config.backbone_lr or config.lr)]
        groups = [
            {"params": [parameter for parameter in module.parameters() if parameter.requires_grad], "lr": rate}
            for module, rate in modules
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=config.weight_decay)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        for group in self.optimizers().param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * self.multiplier(None, self.global_step)
        loss: Tensor = self.criterion(self(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: ARG002
        self.correct += int((self(batch[0]).argmax(dim=1) == batch[1]).sum())

    def on_train_epoch_start(self) -> None:
        self.timer.restart()

    def on_validation_start(self) -> None:
        self.correct = 0
        self.timer.lap("train")

    def on_validation_end(self) -> None:
        self.timer.lap("val")

    def on_train_epoch_end(self) -> None:
        self.timer.lap("train")
        self.timer.end_epoch(**{"val/accuracy": self.correct / len(self.trainer.val_dataloaders.dataset)})


def train(config: Config, train_bn: bool) -> dict[str, Any]:
    """Train `config`; return `epochs` with seconds/train, seconds/val and val/accuracy, and the peak memory.

    Args:
        train_bn: BackboneFinetuning's default, True, trains the batch-norms of the frozen blocks; the backward pass
            then goes through all blocks.

    Raises:
        UserError: data or weights do not fit.
    """
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    setup = plain.set_up(config)
    config, loaders = setup.config, plain.make_loaders(setup)
    network = plain.build(config, len(setup.splits.classes), setup.preprocessing.crop_px)
    module = Module(network, setup, len(loaders["train"]))
    schedule = setup.schedule(network)
    cuts = {epoch: schedule.cut(epoch) for epoch, _ in schedule.steps}
    trainer = Trainer(
        max_epochs=config.epochs,
        accelerator={"cuda": "gpu"}.get(setup.device.type, setup.device.type),
        devices=1,
        callbacks=[Unfreezing(cuts, config.backbone_lr or config.lr, train_bn)] if cuts[0] else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loaders["train"], loaders["val"])
    return {"epochs": module.timer.epochs, **peak_memory(setup.device)}
