"""Checkpoints: safetensors files that are written whole or not at all, and checked when read.

A file holds the model, the average of its parameters and the optimiser's state, and in its
metadata one entry of JSON: the recipe, the step, the data's fingerprint and the history. No
generator's state is needed, as batches and noise are functions of the seed and the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import torch
from safetensors.torch import save_file

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import replacing
from invconv_benchmarks.density.recipes.recipe import Recipe

SCHEMA = "invconv-density-checkpoint/3"
NAME = "checkpoint.safetensors"
_KEY = "invconv-density"
_DESCRIPTION = {
    "schema", "recipe", "image_shape", "data", "step", "steps", "history", "pending", "digest"
}  # fmt: skip

Tensor: TypeAlias = torch.Tensor


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on.

    Attributes
    ----------
    recipe : Recipe
    image_shape : tuple of int
    data : str
        The fingerprint of the data set.
    step : int
        How many steps are done.
    steps : int
        How many there will be.
    history : list of dict
        What was measured on the way.
    pending : dict
        What was measured since.
    tensors : mapping of str to tensor
        "model.*", "average.*" and "optimiser.*".
    """

    recipe: Recipe
    image_shape: tuple[int, int, int]
    data: str
    step: int
    steps: int
    history: list[dict[str, Any]]
    pending: dict[str, float]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix and a dot, without them."""
        start = len(prefix) + 1
        return {n[start:]: t for n, t in self.tensors.items() if n.startswith(f"{prefix}.")}


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; whatever goes wrong, the one that was there before stays.

    Raises
    ------
    OSError
        If it cannot be written: the message names the file.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in checkpoint.tensors.items()}
    description = {
        "schema": SCHEMA,
        "recipe": checkpoint.recipe.to_dict(),
        "image_shape": checkpoint.image_shape,
        "data": checkpoint.data,
        "step": checkpoint.step,
        "steps": checkpoint.steps,
        "history": checkpoint.history,
        "pending": checkpoint.pending,
    }
    description["digest"] = _digest(description, tensors)
    text = json.dumps(description, allow_nan=False)
    try:
        with replacing(path) as part:
            save_file(tensors, part, {_KEY: text})
    except (OSError, safetensors.SafetensorError) as error:
        raise OSError(
            f"{path}: the checkpoint of step {checkpoint.step} cannot be written, the one before "
            f"is still there: {error}"
        ) from None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint. Nothing in it is code, and every byte of it is covered by a digest.

    Raises
    ------
    ValueError
        If there is none, or it is damaged: the message says what to do.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, IsADirectoryError):
        raise CommandError(f"{path}: there is no such checkpoint") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise CommandError(
            f"{path}: no whole checkpoint: {error!s:.300}; delete it to begin anew, or restore it"
        ) from None
    try:
        return _checked(metadata, tensors)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise CommandError(f"{path}: no checkpoint of this version: {error!s:.300}") from None


def _checked(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    if _KEY not in metadata:
        raise CommandError(f"its metadata has no entry {_KEY!r}")
    description = json.loads(metadata[_KEY])
    if not isinstance(description, dict) or description.get("schema") != SCHEMA:
        raise CommandError(f"expected the schema {SCHEMA}")
    if set(description) != _DESCRIPTION:
        raise CommandError(f"expected {sorted(_DESCRIPTION)}, got {sorted(description)}")
    if description.pop("digest") != _digest(description, tensors):
        raise CommandError("the digest is not that of its contents: they were changed or damaged")
    channels, height, width = description["image_shape"]
    step, steps = int(description["step"]), int(description["steps"])
    if not 0 <= step <= steps:
        raise CommandError(f"expected a step from 0 to {steps}, got {step}")
    if not all(isinstance(entry, dict) for entry in description["history"]):
        raise TypeError("expected objects as history")
    return Checkpoint(
        Recipe.from_dict(description["recipe"]),
        (int(channels), int(height), int(width)),
        str(description["data"]),
        step,
        steps,
        list(description["history"]),
        dict(description["pending"]),
        tensors,
    )


def load_into(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], what: str) -> None:
    """Copy stored tensors into those of the same names.

    Raises
    ------
    ValueError
        Unless names, shapes and dtypes agree, and all numbers are finite.
    """
    if set(own) != set(stored):
        odd = sorted(set(own) ^ set(stored))
        raise CommandError(f"{what}: other tensors than expected, such as {odd[:3]}")
    with torch.no_grad():
        for name, tensor in own.items():
            other = stored[name]
            if tensor.shape != other.shape or tensor.dtype != other.dtype:
                raise CommandError(
                    f"{what}: {name} is {other.dtype} of shape {tuple(other.shape)}, expected "
                    f"{tensor.dtype} of shape {tuple(tensor.shape)}"
                )
            if not bool(torch.isfinite(other).all()):
                raise CommandError(f"{what}: {name} holds NaN or inf")
            tensor.copy_(other)


def _digest(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
