"""A density model as a module of Lightning: its steps, the average of its parameters, its data."""

import copy
import itertools
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeAlias

import lightning
import torch
from torch import Tensor, nn

from invconv import IllConditionedWarning
from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data.dataset import Batches, Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.recipes.checkpoint import KEY
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_torch import InverseGuard, InvertibleModule
from invconv_torch.flows import Multiscale

Pair: TypeAlias = tuple[Tensor, Tensor]

MEASUREMENTS = 20  # of the tiles held out, in a run
_LOST = 2.0  # digits: with fewer an inverse cannot be right


class DivergedError(CommandError):
    """A run that cannot go on; its last checkpoint is from before."""


class DensityModule(lightning.LightningModule):  # type: ignore[misc]
    """A run that can be saved after any step and goes on from there, on a CPU bit for bit."""

    def __init__(self, recipe: Recipe, data: Dataset) -> None:
        super().__init__()
        self.recipe, self.data = recipe, data
        self.step, self.steps = 0, recipe.length(len(data))
        self.history: list[dict[str, Any]] = []
        self.flow = recipe.flow(data.image_shape)
        first = Batches(data, recipe.initial_images, recipe.seed)
        self.flow.initialize(self.flow.dequantize(*_pair(first, 0, slice(None)))[0])
        self.average = copy.deepcopy(self.flow).requires_grad_(False).eval()

    def train_dataloader(self) -> Iterator[Pair]:
        """Yield the batches of the steps that are left; of several processes, this one's part."""
        size, rank = self.recipe.batch, self.trainer.global_rank
        each = size // self.trainer.world_size
        batches = Batches(self.data, size, self.recipe.seed)
        part = slice(rank * each, (rank + 1) * each)
        return (_pair(batches, step, part) for step in itertools.count(self.step))

    def on_train_start(self) -> None:
        """Watch the layers' inverses, and start the clock."""
        self._guard = InverseGuard(self.flow, digits=_LOST, every=1)
        self._clock = self.step, time.perf_counter()

    def training_step(self, batch: Pair, index: int) -> Tensor:
        """Return the mean bits a dimension of a batch."""
        self._batch = batch
        loss = self.flow.bits_per_dim(*batch).mean()
        self.loss = loss.detach()
        self.log("bits/dim", self.loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adamax and its warm-up."""
        recipe, epoch = self.recipe, len(self.data)
        optimiser = torch.optim.Adamax(self.flow.parameters(), recipe.learning_rate)
        warm_up = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: recipe.warm_up(step, epoch)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": warm_up, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Raise DivergedError, before the step, if the loss or a gradient is not finite."""
        gradients = [p.grad for p in self.flow.parameters() if p.grad is not None]
        self._require_finite(self.loss + nn.utils.get_total_norm(gradients))

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        """Do a step, and take it into the average: early ones weigh less, as in TensorFlow's."""
        super().optimizer_step(*arguments, **more)
        self.step += 1
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.flow.parameters(), strict=True)
            for average, parameter in pairs:
                average.lerp_(parameter, 1 - keep)

    @property
    def due(self) -> bool:
        """Whether it is time to measure."""
        return self.step % -(-self.steps // MEASUREMENTS) == 0 or self.step == self.steps

    def measure(self) -> None:
        """Judge all inverses, and append bits/dim of tiles held out to the history."""
        before, start = self._clock
        seconds = (time.perf_counter() - start) / (self.step - before)
        self._require_inverses()
        if not self.trainer.is_global_zero:
            return
        watched = self.data.watched
        bits = float(evaluation.bits_per_dim(self.average, self.data, watched).mean())
        if not math.isfinite(bits):
            raise self._diverged(f"the {watched} images have {bits} bits/dim with the average")
        self._clock = self.step, time.perf_counter()
        entry = {"step": self.step, "train": float(self.loss), "held_out": bits}
        self.history.append(entry | {"seconds_per_step": seconds})
        self.log("held out", bits, prog_bar=True, rank_zero_only=True)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def require_numbers(self) -> None:
        """Raise DivergedError unless the last batch still has finite bits/dim: before saving."""
        self._require_finite(self.flow.bits_per_dim(*self._batch).mean())

    def _require_finite(self, number: Tensor) -> None:
        if not torch.isfinite(number):
            layer = first_non_finite(self.flow, self.flow.dequantize(*self._batch)[0])
            cause = f"{layer or 'a gradient or the sum of all layers'} is not finite"
            raise self._diverged(f"{cause}; a floor of the coupling's scale may help")

    def _require_inverses(self) -> None:
        try:
            with warnings.catch_warnings(action="error", category=IllConditionedWarning):
                for _, layer in self.flow.steps():
                    if isinstance(layer, InvertibleModule):  # the guard takes them in turn
                        self._guard.step(self.flow)
        except IllConditionedWarning as warning:
            raise self._diverged(str(warning)) from None

    def _diverged(self, cause: str) -> DivergedError:
        kept = "the checkpoint before it is kept. Lower the learning rate"
        return DivergedError(f"step {self.step}: {cause}; {kept}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the run in its checkpoint."""
        checkpoint[KEY] = {
            "recipe": asdict(self.recipe),
            "image_shape": self.data.image_shape,
            "data": self.data.fingerprint,
            "step": self.step,
            "steps": self.steps,
            "history": self.history,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the measurements up again."""
        self.step, self.history = checkpoint[KEY]["step"], checkpoint[KEY]["history"]


@torch.no_grad()  # type: ignore[untyped-decorator]
def first_non_finite(model: Multiscale, x: Tensor) -> str | None:
    """Return the name of the first layer with an output that is not finite, or a gradient."""
    names: list[str] = []

    def look(name: str, out: Tensor) -> Tensor:
        if not torch.isfinite(out).all():
            names.append(f"the output of layer {name}")
        return out

    model.encode(x, watch=look)
    for name, layer in reversed(model.steps()):
        gradients = [p.grad for p in layer.parameters() if p.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            names.append(f"a gradient of layer {name}")
    return names[0] if names else None


def _pair(batches: Batches, step: int, part: slice) -> Pair:
    return torch.from_numpy(batches.images(step, part)), torch.from_numpy(batches.noise(step, part))
