"""A density model as a module of Lightning: its steps, the average of its parameters, its data."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import lightning
import torch
from torch import nn

from invconv_benchmarks.density.data.dataset import Batches, Dataset
from invconv_benchmarks.density.models.build import build
from invconv_benchmarks.density.recipes.checkpoint import KEY
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import require_finite

Tensor: TypeAlias = torch.Tensor
Pair: TypeAlias = tuple[Tensor, Tensor]


class DensityModule(lightning.LightningModule):  # type: ignore[misc]
    """A run that can be saved after any step and goes on from there, on a CPU bit for bit.

    Parameters
    ----------
    recipe : Recipe
    data : Dataset

    Attributes
    ----------
    flow, average : Multiscale
        With the parameters, and with Polyak's average of them.
    step, steps : int
        How many are done, and how many there will be.
    history : list of dict
        The measurements on the way.
    pending : dict
        Sums over the steps since the last measurement.
    """

    def __init__(self, recipe: Recipe, data: Dataset) -> None:
        super().__init__()
        self.recipe, self.data = recipe, data
        self.step, self.steps = 0, recipe.training.length(len(data))
        self.history: list[dict[str, Any]] = []
        self.pending: dict[str, float] = {}
        self.flow = build(recipe.architecture, data.image_shape, recipe.seed)
        first = Batches(data, recipe.training.initial_images, recipe.seed)
        self.flow.initialize(self.flow.dequantize(*_pair(first, 0, slice(None)))[0])
        self.average = copy.deepcopy(self.flow).requires_grad_(False).eval()

    def train_dataloader(self) -> Steps:
        """Return the batches of the steps that are left."""
        return Steps(self)

    def training_step(self, batch: Pair, index: int) -> Tensor:
        """Return the mean bits a dimension of a batch."""
        self.batch = batch
        loss = self.flow.bits_per_dim(*batch).mean()
        self.loss = loss.detach()
        self.log("bits/dim", self.loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adamax and its warm-up."""
        training = self.recipe.training
        optimiser = torch.optim.Adamax(self.flow.parameters(), training.learning_rate)
        warm_up = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: training.warm_up(step, len(self.data))
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": warm_up, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Raise DivergedError if a number is not finite; the model stays as it was."""
        gradients = [p.grad for p in self.flow.parameters() if p.grad is not None]
        self.norm = nn.utils.get_total_norm(gradients)
        x, _ = self.flow.dequantize(*self.batch)
        require_finite(self.flow, x, self.loss, self.norm, self.step)

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        """Do a step, and take it into the average: early ones weigh less, as in TensorFlow's."""
        super().optimizer_step(*arguments, **more)
        self.step += 1
        keep = min(self.recipe.training.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.flow.parameters(), strict=True)
            for average, parameter in pairs:
                average.lerp_(parameter, 1 - keep)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def require_finite(self) -> None:
        """Raise unless the model makes numbers of its last batch: only such a one is saved."""
        bits = self.flow.bits_per_dim(*self.batch).mean()
        x, _ = self.flow.dequantize(*self.batch)
        require_finite(self.flow, x, bits, torch.zeros_like(bits), self.step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the run in its checkpoint."""
        checkpoint[KEY] = {
            "recipe": self.recipe.to_dict(),
            "image_shape": self.data.image_shape,
            "data": self.data.fingerprint,
            "step": self.step,
            "steps": self.steps,
            "history": self.history,
            "pending": self.pending,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the measurements up again."""
        names = "step", "history", "pending"
        self.step, self.history, self.pending = (checkpoint[KEY][name] for name in names)


class Steps:
    """The batches from a module's step on; of several processes, this one's part of each."""

    def __init__(self, module: DensityModule) -> None:
        self._module = module

    def __iter__(self) -> Iterator[Pair]:
        module, size = self._module, self._module.recipe.training.batch
        batches = Batches(module.data, size, module.recipe.seed)
        each = size // module.trainer.world_size
        rank = module.trainer.global_rank
        for step in itertools.count(module.step):
            yield _pair(batches, step, slice(rank * each, (rank + 1) * each))


def _pair(batches: Batches, step: int, part: slice) -> Pair:
    return torch.from_numpy(batches.images(step, part)), torch.from_numpy(batches.noise(step, part))
