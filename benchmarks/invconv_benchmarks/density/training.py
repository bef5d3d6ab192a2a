"""A run as a module of Lightning, and its training from a folder's checkpoint on.

It runs in one process or in those of torchrun. Two things replace Lightning's: Lightning writes
checkpoints through a file elsewhere that it copies, which a kill or a full disk leaves incomplete,
and at Ctrl-C it stops amid a step, after which no run can go on.
"""

import copy
import io
import itertools
import logging
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from invconv import IllConditionedWarning
from invconv.arrays.errors import CommandError
from invconv.files.container import replacing
from invconv_benchmarks.density import evaluation
from invconv_benchmarks.density.data import Batches, Dataset
from invconv_benchmarks.density.recipe import CHECKPOINT, KEY, Recipe, read_checkpoint
from invconv_torch import InverseGuard, InvertibleModule
from invconv_torch.flows import Multiscale

Pair: TypeAlias = tuple[Tensor, Tensor]

MEASUREMENTS = 20  # in a run, of the tiles held out
_LOST = 2.0  # digits: with fewer an inverse cannot be right
_PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


class DivergedError(CommandError):
    """A run that cannot go on; its last checkpoint is from before."""


class DensityModule(lightning.LightningModule):  # type: ignore[misc]
    """A run that can be saved after any step and goes on from there, on a CPU bit for bit.

    The arguments after the recipe and the data are those of `train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Dataset,
        path: Path,
        should_stop: Callable[[], bool],
        seconds: float,
        say: Callable[[str], object],
    ) -> None:
        super().__init__()
        self.recipe, self.data, self.path = recipe, data, path
        self.should_stop, self.seconds, self.say = should_stop, seconds, say
        self._sigterm = signal.getsignal(signal.SIGTERM)
        self.step, self.steps = 0, recipe.length(len(data))
        self.history: list[dict[str, Any]] = []
        self.flow = recipe.flow(data.image_shape)
        first = Batches(data, recipe.initial_images, recipe.seed)
        self.flow.initialize(self.flow.dequantize(*_pair(first, 0, slice(None)))[0])
        self.average = copy.deepcopy(self.flow).requires_grad_(False).eval()

    def train_dataloader(self) -> Iterator[Pair]:
        """Yield the batches of the remaining steps; with several processes, this one's part."""
        size, rank = self.recipe.batch, self.trainer.global_rank
        each = size // self.trainer.world_size
        batches = Batches(self.data, size, self.recipe.seed)
        part = slice(rank * each, (rank + 1) * each)
        return (_pair(batches, step, part) for step in itertools.count(self.step))

    def on_train_start(self) -> None:
        """Watch the layers' inverses, and start the clocks."""
        signal.signal(signal.SIGTERM, self._sigterm)  # Lightning's handler would not save
        self._guard = InverseGuard(self.flow, digits=_LOST, every=1)
        self._clock, self._saved = (self.step, time.perf_counter()), time.monotonic()

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
        """Do a step, and take it into the average: early steps weigh less, as in TensorFlow's."""
        super().optimizer_step(*arguments, **more)
        self.step += 1
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        average, own = (list(model.parameters()) for model in (self.average, self.flow))
        get_ema_multi_avg_fn(keep)(average, own, self.step)

    def on_train_batch_end(self, *_: Any) -> None:
        """Measure and save when due; if one process is asked to stop, all stop."""
        due = self.step % -(-self.steps // MEASUREMENTS) == 0 or self.step == self.steps
        if due:
            self._measure()
            if self.trainer.is_global_zero:
                last = "train {train:.3f}, held out {held_out:.3f}".format(**self.history[-1])
                self.say(f"{self.step:>6}/{self.steps}  bits/dim: {last}")
        anyone = self.trainer.strategy.reduce_boolean_decision
        self.trainer.should_stop = anyone(self.should_stop(), all=False)
        late = anyone(time.monotonic() - self._saved > self.seconds, all=False)
        if due or late or self.trainer.should_stop:
            with torch.no_grad():  # the last batch still has finite bits/dim
                self._require_finite(self.flow.bits_per_dim(*self._batch).mean())
            try:
                self.trainer.save_checkpoint(self.path)
            except OSError as error:
                what = f"the checkpoint of step {self.step} cannot be written"
                kept = f"the one before is still there: {error}"
                raise OSError(f"{self.path}: {what}, {kept}") from None
            self._saved = time.monotonic()

    def _measure(self) -> None:
        """Judge all inverses, and append bits/dim of held-out tiles to the history."""
        before, start = self._clock
        seconds = (time.perf_counter() - start) / (self.step - before)
        try:
            with warnings.catch_warnings(action="error", category=IllConditionedWarning):
                for _, layer in self.flow.steps():
                    if isinstance(layer, InvertibleModule):  # the guard takes them in turn
                        self._guard.step(self.flow)
        except IllConditionedWarning as warning:
            raise self._diverged(str(warning)) from None
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

    def _require_finite(self, number: Tensor) -> None:
        if not torch.isfinite(number):
            layer = first_non_finite(self.flow, self.flow.dequantize(*self._batch)[0])
            cause = f"{layer or 'a gradient or the sum of all layers'} is not finite"
            raise self._diverged(f"{cause}; a floor of the coupling's scale may help")

    def _diverged(self, cause: str) -> DivergedError:
        kept = "the checkpoint before it is kept. Lower the learning rate"
        return DivergedError(f"step {self.step}: {cause}; {kept}")

    def on_save_checkpoint(self, stored: dict[str, Any]) -> None:
        """Describe the run in its checkpoint."""
        stored[KEY] = {
            "recipe": asdict(self.recipe),
            "image_shape": self.data.image_shape,
            "data": self.data.fingerprint,
            "step": self.step,
            "steps": self.steps,
            "history": self.history,
        }

    def on_load_checkpoint(self, stored: dict[str, Any]) -> None:
        """Take the measurements up again."""
        self.step, self.history = stored[KEY]["step"], stored[KEY]["history"]


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


def train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    device: str = "cpu",
    seconds: float = 300.0,
    say: Callable[[str], object] = str,
    bar: bool = False,
) -> DensityModule:
    """Train until the recipe's last step, from where the folder's checkpoint is.

    ``should_stop`` is asked after every step whether to write a checkpoint and end there. A
    checkpoint is written after each measurement and after so many ``seconds``. ``say`` is told each
    measurement in a line, in the first of several processes; ``bar`` shows Lightning's bar.
    """
    path = folder / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{'[0-9a-f]' * 16}.part"):  # of a run killed in `replacing`
        left.unlink(missing_ok=True)
    stored = read_checkpoint(path) if path.exists() else None
    if stored is not None and (other := stored.difference(recipe, data.fingerprint)):
        raise CommandError(f"{path}: {other}; choose another folder, or delete it")
    module = DensityModule(recipe, data, path, should_stop, seconds, say)
    if stored is not None and stored.step == stored.steps:
        module.average.load_state_dict(stored.average)
        module.history, module.step = stored.history, stored.step
        return module
    _fit(module, device, stored is not None, bar)
    return module


def _fit(module: DensityModule, device: str, goes_on: bool, bar: bool) -> None:
    here, world = (int(os.environ.get(f"{n}WORLD_SIZE", 1)) for n in ("LOCAL_", ""))  # torchrun's
    if (batch := module.recipe.batch) % world:
        raise CommandError(f"batch: expected a multiple of the {world} processes, got {batch}")
    place = torch.device(device)
    one: Any = 1 if place.index is None else [place.index]
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", ".*LeafSpec|.*broadcast_buffers", FutureWarning)
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(place.type, place.type),
            devices=here if world > 1 else one,
            num_nodes=world // here,
            strategy="ddp" if world > 1 else "auto",
            max_steps=module.steps,
            precision=_PRECISIONS[module.recipe.precision],
            plugins=[WholeFiles()],
            logger=False,
            enable_checkpointing=False,  # the module says when
            enable_progress_bar=bar,
            enable_model_summary=False,
        )
        trainer.fit(module, ckpt_path=module.path if goes_on else None)


class WholeFiles(TorchCheckpointIO):  # type: ignore[misc]
    """Writes a checkpoint whole or not at all."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; whatever goes wrong, the one that was there before stays."""
        content = io.BytesIO()  # on a full disk torch.save itself raises no OSError
        torch.save(checkpoint, content)
        with replacing(Path(path)) as part:
            part.write_bytes(content.getbuffer())


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Yield a list that gets an entry when the process is asked to end, by a first Ctrl-C, too."""
    asked: list[int] = []

    def hear(number: int, frame: object) -> None:
        if number in asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {kind: signal.signal(kind, hear) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
