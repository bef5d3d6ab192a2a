"""One run: a model, the average of its parameters, an optimiser, and its steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data.dataset import Batches, Dataset
from invconv_benchmarks.density.models.build import build
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.checkpoint import Checkpoint
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import require_finite
from invconv_benchmarks.density.training.processes import ALONE, Processes
from invconv_torch.flows import Multiscale

Tensor: TypeAlias = torch.Tensor


@dataclass(frozen=True)
class StepReport:
    """The loss, the gradient's norm and the learning rate of a step.

    Attributes
    ----------
    bits_per_dim : float
        Of its batch; of a process's own part.
    gradient_norm : float
    rate : float
        The learning rate.
    """

    bits_per_dim: float
    gradient_norm: float
    rate: float


class Trainer:
    """A run that can be saved after any step and goes on from there, on a CPU bit for bit.

    Parameters
    ----------
    recipe : Recipe
    data : Dataset
    device : str
    processes : Processes
        Who else trains; each takes its part of every batch.

    Attributes
    ----------
    model : Multiscale
    average : Multiscale
        With Polyak's average of the parameters.
    step : int
        How many are done.
    steps : int
        How many there will be.
    """

    def __init__(
        self, recipe: Recipe, data: Dataset, device: str = "cpu", processes: Processes = ALONE
    ) -> None:
        self.recipe, self.data, self.device = recipe, data, torch.device(device)
        self.batches = Batches(data, recipe.training.batch, recipe.seed)
        self.part = processes.part(recipe.training.batch)
        self.model = build(recipe.architecture, data.image_shape, recipe.seed).to(self.device)
        self.step = 0
        self.steps = recipe.training.length(len(data))
        self.history: list[dict[str, Any]] = []
        self.pending: dict[str, float] = {}
        self._initialise()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        loss = _Loss(self.model)
        self._loss = (
            DistributedDataParallel(loss, broadcast_buffers=False) if processes.size > 1 else loss
        )
        self._optimiser = torch.optim.Adamax(self.model.parameters(), recipe.training.learning_rate)

    def _initialise(self) -> None:
        """Normalise actnorm on images of their own, which are the same in every process."""
        first = Batches(self.data, self.recipe.training.initial_images, self.recipe.seed)
        x, _ = self.model.dequantize(*self._tensors(first, 0, slice(None)))
        self.model.initialize(x)

    def _tensors(self, batches: Batches, step: int, part: slice) -> tuple[Tensor, Tensor]:
        arrays = batches.images(step, part), batches.noise(step, part)
        images, noise = (torch.from_numpy(a).to(self.device) for a in arrays)
        return images, noise

    def advance(self) -> StepReport:
        """Do a step.

        Raises
        ------
        DivergedError
            If a number is not finite; the model is then as it was before the step.
        """
        training = self.recipe.training
        images, noise = self._tensors(self.batches, self.step, self.part)
        half = training.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            loss = self._loss(images, noise)
        self._optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm(
            [p.grad for p in self.model.parameters() if p.grad is not None]
        )
        x, _ = self.model.dequantize(images, noise)
        require_finite(self.model, x, loss, norm, self.step)
        rate = training.rate(self.step, len(self.data))
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self.step += 1
        self._update_average()
        return StepReport(float(loss.detach()), float(norm), rate)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def require_finite(self) -> None:
        """Raise unless the model still makes numbers of its last batch: what is saved is good.

        Raises
        ------
        DivergedError
            That names the layer.
        """
        images, noise = self._tensors(self.batches, max(0, self.step - 1), self.part)
        bits = self.model.bits_per_dim(images, noise).mean()
        x, _ = self.model.dequantize(images, noise)
        require_finite(self.model, x, bits, torch.zeros_like(bits), self.step)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _update_average(self) -> None:
        # early steps weigh less at first, as in TensorFlow's moving average
        keep = min(self.recipe.training.average, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        for average, parameter in pairs:
            average.lerp_(parameter, 1 - keep)

    def _optimiser_state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self._optimiser.state[parameter].items()
        }

    def checkpoint(self) -> Checkpoint:
        """Return what is needed to go on from here."""
        parts = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser_state() if self.step else {},
        }
        return Checkpoint(
            recipe=self.recipe,
            image_shape=self.data.image_shape,
            data=self.data.fingerprint,
            step=self.step,
            steps=self.steps,
            history=self.history,
            pending=self.pending,
            tensors={f"{p}.{n}": t for p, state in parts.items() for n, t in state.items()},
        )

    def resume(self, stored: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        ValueError
            If it is of another recipe or other images, or does not fit the model.
        """
        if stored.recipe.settings != self.recipe.settings:
            raise CommandError(f"the checkpoint is of another run: {_difference(stored, self)}")
        if stored.data != self.data.fingerprint:
            raise CommandError("the checkpoint is of a run on other images")
        checkpoint.load_into(self.model.state_dict(), stored.part("model"), "model")
        checkpoint.load_into(self.average.state_dict(), stored.part("average"), "average")
        if stored.step:
            for parameter in self.model.parameters():
                self._optimiser.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_inf": torch.zeros_like(parameter),
                }
            checkpoint.load_into(self._optimiser_state(), stored.part("optimiser"), "optimiser")
        self.step, self.history, self.pending = stored.step, stored.history, stored.pending


class _Loss(nn.Module):  # type: ignore[misc]
    """Mean bits a dimension, as a module, because that is what can be distributed."""

    def __init__(self, model: Multiscale) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        return self.model.bits_per_dim(images, noise).mean()


def _difference(stored: Checkpoint, trainer: Trainer) -> str:
    def flat(settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, **settings["architecture"], **settings["training"]}

    then, now = flat(stored.recipe.settings), flat(trainer.recipe.settings)
    names = [n for n in now if n not in ("architecture", "training") and then.get(n) != now[n]]
    return ", ".join(f"{n} was {then.get(n)!r} and is {now[n]!r}" for n in names)
