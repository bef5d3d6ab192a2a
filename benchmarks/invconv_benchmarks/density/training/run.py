"""Training by Lightning: from a folder's checkpoint on, in one process or in those of torchrun.

Two things are ours: Lightning writes checkpoints through a file elsewhere that it copies, which a
kill or a full disk leaves in part, and at Ctrl-C it leaves amid a step, from which no run goes on.
"""

import io
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from invconv.arrays.errors import CommandError
from invconv.files.container import replacing
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.module import DensityModule

_PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


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
    path = folder / checkpoint.NAME
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{'[0-9a-f]' * 16}.part"):  # of a run killed in `replacing`
        left.unlink(missing_ok=True)
    stored = checkpoint.read(path) if path.exists() else None
    if stored is not None:
        try:
            stored.require_same(recipe, data.fingerprint)
        except CommandError as error:
            raise CommandError(f"{path}: {error}; choose another folder, or delete it") from None
    module = DensityModule(recipe, data)
    if stored is not None and stored.step == stored.steps:
        module.average.load_state_dict(stored.average)
        module.history, module.step = stored.history, stored.step
        return module
    keeper = Keeper(path, should_stop, seconds, say)
    _fit(module, keeper, device, stored is not None, bar)
    return module


def _fit(module: DensityModule, keeper: "Keeper", device: str, goes_on: bool, bar: bool) -> None:
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
            callbacks=[keeper],
            plugins=[WholeFiles()],
            logger=False,
            enable_checkpointing=False,  # `Keeper` says when
            enable_progress_bar=bar,
            enable_model_summary=False,
        )
        trainer.fit(module, ckpt_path=keeper.path if goes_on else None)


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


@dataclass(eq=False)
class Keeper(lightning.Callback):  # type: ignore[misc]
    """Measures and saves a run, and stops it when asked; the first four fields are `train`'s."""

    path: Path
    should_stop: Callable[[], bool]
    seconds: float
    say: Callable[[str], object]
    saved: float = field(default_factory=time.monotonic)
    sigterm: Any = field(default_factory=lambda: signal.getsignal(signal.SIGTERM))

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Take Lightning's handler of SIGTERM away: it would not save."""
        signal.signal(signal.SIGTERM, self.sigterm)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *_: Any) -> None:
        """Measure and save where it is due; one process that is asked to stop stops all."""
        if module.due:
            module.measure()
            if trainer.is_global_zero:
                last = "train {train:.3f}, held out {held_out:.3f}".format(**module.history[-1])
                self.say(f"{module.step:>6}/{module.steps}  bits/dim: {last}")
        anyone = trainer.strategy.reduce_boolean_decision
        trainer.should_stop = anyone(self.should_stop(), all=False)
        late = anyone(time.monotonic() - self.saved > self.seconds, all=False)
        if module.due or late or trainer.should_stop:
            module.require_numbers()
            try:
                trainer.save_checkpoint(self.path)
            except OSError as error:
                what = f"the checkpoint of step {module.step} cannot be written"
                kept = f"the one before is still there: {error}"
                raise OSError(f"{self.path}: {what}, {kept}") from None
            self.saved = time.monotonic()


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
