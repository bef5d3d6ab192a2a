"""Training by Lightning: from a folder's checkpoint on, in one process or in those of torchrun."""

from __future__ import annotations

import io
import logging
import math
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
from invconv.files.whole_files import replacing
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import DivergedError, Watch
from invconv_benchmarks.density.training.module import DensityModule

MEASUREMENTS = 20  # of the tiles held out, in a run
_PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


@dataclass(frozen=True)
class Progress:
    """How far a run is, whether it begins, a measurement if any, and notes for the user."""

    step: int
    steps: int
    begins: bool = False
    measured: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


Report = Callable[[Progress], None]


def train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    *,
    report: Report = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: str = "cpu",
    seconds: float = 300.0,
    bar: bool = False,
) -> DensityModule:
    """Train until the recipe's last step, from where the folder's checkpoint is.

    Parameters
    ----------
    recipe : Recipe
    data : Dataset
    folder : Path
        Made if it is not there. A checkpoint of another run in it is an error.
    report : callable
        Is told after every step, in the first of several processes.
    should_stop : callable
        Asked after every step; if it says so, a checkpoint is written and the run ends there.
    device : str
    seconds : float
        After which another checkpoint is written; one is written after each measurement, too.
    bar : bool
        Whether Lightning shows its progress.

    Raises
    ------
    DivergedError
        That names the layer; the last checkpoint is from before.
    """
    path = folder / checkpoint.NAME
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.part"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    stored = _stored(path, recipe, data)
    module = DensityModule(recipe, data)
    if stored is not None and stored.step == stored.steps:
        module.average.load_state_dict(stored.average)
        module.history, module.step = stored.history, stored.step
        return module
    keeper = Keeper(path, report, should_stop, seconds)
    fit(module, device, keeper, path if stored is not None else None, bar=bar)
    return module


def _stored(path: Path, recipe: Recipe, data: Dataset) -> checkpoint.Checkpoint | None:
    if not path.exists():
        return None
    try:
        stored = checkpoint.read(path)
        checkpoint.require_same(stored, recipe, data.fingerprint)
    except CommandError as error:
        prefix = "" if str(path) in str(error) else f"{path}: "
        raise CommandError(f"{prefix}{error}; choose another folder, or delete it") from None
    return stored


def fit(
    module: DensityModule,
    device: str,
    callback: lightning.Callback,
    path: Path | None = None,
    steps: int | None = None,
    bar: bool = False,
) -> None:
    """Run a module's steps, all that are left unless told how many, from a checkpoint if any."""
    size, batch = _processes(), module.recipe.training.batch
    if batch % size:
        raise CommandError(f"batch: expected a multiple of the {size} processes, got {batch}")
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", ".*LeafSpec|.*broadcast_buffers", FutureWarning)
        trainer = lightning.Trainer(
            max_steps=module.steps if steps is None else steps,
            precision=_PRECISIONS[module.recipe.training.precision],
            callbacks=[callback],
            plugins=[WholeFiles()],
            logger=False,
            enable_checkpointing=False,  # `Keeper` says when
            enable_progress_bar=bar,
            enable_model_summary=False,
            **_where(device, size),
        )
        trainer.fit(module, ckpt_path=path)


def _processes() -> int:
    """Return how many processes torchrun has started, 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def _where(device: str, processes: int) -> dict[str, Any]:
    """Return Lightning's words for a device, and for the processes that torchrun started."""
    place = torch.device(device)
    accelerator = {"cuda": "gpu"}.get(place.type, place.type)
    if processes > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        several = {"devices": here, "num_nodes": processes // here, "strategy": "ddp"}
        return {"accelerator": accelerator, **several}
    return {"accelerator": accelerator, "devices": 1 if place.index is None else [place.index]}


class WholeFiles(TorchCheckpointIO):  # type: ignore[misc]
    """Writes a checkpoint whole or not at all: Lightning's own may copy it across file systems."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; whatever goes wrong, the one that was there before stays."""
        content = io.BytesIO()  # on a full disk torch.save itself raises no OSError
        torch.save(checkpoint, content)
        with replacing(Path(path)) as part:
            part.write_bytes(content.getbuffer())


class Keeper(lightning.Callback):  # type: ignore[misc]
    """Measures, saves and reports a run, and stops it when asked; arguments are `train`'s."""

    def __init__(
        self, path: Path, report: Report, should_stop: Callable[[], bool], seconds: float
    ) -> None:
        self._path, self._report, self._should_stop = path, report, should_stop
        self._seconds, self._saved, self._start = seconds, time.monotonic(), 0.0
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Watch the layers' inverses, and say where the run is."""
        signal.signal(signal.SIGTERM, self._sigterm)  # Lightning's own would not save
        self._watch = Watch(module.flow)
        self._tell(module, begins=True)

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock of a step."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *_: Any) -> None:
        """Measure twenty times in a run; save then, when time has passed, and at the end."""
        self._add(module)
        step, every = module.step, -(-module.steps // MEASUREMENTS)
        measured, due = None, step % every == 0 or step == module.steps
        if due:
            measured = self._measure(module)
        trainer.should_stop = self._should_stop()
        late = time.monotonic() - self._saved > self._seconds
        if trainer.strategy.broadcast(due or late or trainer.should_stop):
            self._save(trainer, module)
        self._tell(module, measured)

    def _tell(
        self, module: DensityModule, measured: dict[str, Any] | None = None, begins: bool = False
    ) -> None:
        notes, self._watch.warnings = self._watch.warnings, []
        if module.trainer.is_global_zero:
            self._report(Progress(module.step, module.steps, begins, measured, notes))

    def _add(self, module: DensityModule) -> None:
        """Take a step into the sums since the last measurement."""
        sums, taken = module.pending, time.perf_counter() - self._start
        for name, value in (("count", 1), ("bits", float(module.loss)), ("seconds", taken)):
            sums[name] = sums.get(name, 0.0) + value
        sums["norm"] = max(sums.get("norm", 0.0), float(module.norm))

    def _measure(self, module: DensityModule) -> dict[str, Any] | None:
        """Append to the history, and return the entry; in the first process only."""
        step = module.step
        worst, (sums, module.pending) = self._watch.look(step), (module.pending, {})
        if not module.trainer.is_global_zero:
            return None
        watched = module.data.watched
        bits = float(evaluation.bits_per_dim(module.average, module.data, watched).mean())
        if not bits < math.inf:
            raise DivergedError(
                f"step {step}: the {watched} images have {bits} bits/dim with the averaged "
                "parameters; the checkpoint before it is kept. Lower the learning rate"
            )
        entry = {
            "step": step,
            "train": sums["bits"] / sums["count"],
            "held_out": bits,
            "gradient_norm": sums["norm"],
            "seconds_per_step": sums["seconds"] / sums["count"],
            "worst_layer": worst.name,
            "inverse_error": worst.error,
        }
        module.history.append(entry)
        module.log("held out", bits, prog_bar=True, rank_zero_only=True)
        return entry

    def _save(self, trainer: lightning.Trainer, module: DensityModule) -> None:
        """Write a checkpoint, whole or not at all."""
        module.require_finite()
        try:
            trainer.save_checkpoint(self._path)
        except OSError as error:
            raise OSError(
                f"{self._path}: the checkpoint of step {module.step} cannot be written, "
                f"the one before is still there: {error}"
            ) from None
        self._saved = time.monotonic()


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Yield a list that gets an entry when the user or the system asks the process to end.

    Of several processes none can stop alone: they end at once, and go on from their checkpoint.
    """
    asked: list[int] = []

    def hear(number: int, frame: object) -> None:
        if asked:  # a second signal ends the process at once
            raise KeyboardInterrupt
        asked.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM) if _processes() == 1 else ()
    before = {kind: signal.signal(kind, hear) for kind in kinds}
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
