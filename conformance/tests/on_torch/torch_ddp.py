"""Data-parallel training beside training in one process: the same losses and gradients.

From the root of the repository, on two processes::

    torchrun --standalone --nproc-per-node 2 conformance/tests/on_torch/torch_ddp.py

With ``--sharded`` the parameters are shared out among the processes (FSDP2), with ``--tensors`` the
images are DTensors; with ``--backend nccl`` each process takes a GPU of its own.
"""

import argparse
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_module, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import invconv_torch as it
from invconv.extend import Pointwise
from invconv.operators.base.fields import mixings

STEPS, BATCH, RATE = 3, 8, 0.05


class Flow(it.Chain):
    """A small flow of all layers, whose loss looks at both directions: both are differentiated."""

    def __init__(self) -> None:
        kinds = it.ActNorm, it.PeriodicConv2d, it.SymmetricConv2d, it.ExponentialConv2d
        layers = [*(kind(4) for kind in kinds), it.ExponentialConv2d(4, padding="circular")]
        layers += [it.AutoregressiveConv2d(4, mask="raster"), it.EmergingConv2d(4, mixing="qr")]
        super().__init__([*layers, *(it.Conv1x1(4, name) for name in mixings(Pointwise))])

    def forward(self, x: Any) -> Any:
        z, log_det = super().forward(x)
        back, _ = self.inverse(0.9 * z)
        axes = (1, 2, 3)
        return 0.5 * (z**2).sum(axes) - log_det + ((back - x) ** 2).sum(axes)


def train(model: Any, images: Any) -> tuple[list[Any], list[Any]]:
    """Return the mean losses, and the gradients of the last step."""
    optimiser = torch.optim.SGD(model.parameters(), RATE / images[0][0].numel())
    losses = []
    for x in images:
        optimiser.zero_grad()
        loss = model(x).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return losses, [p.grad for p in model.parameters()]


def sharded(model: Flow) -> Any:
    """Share out every layer's parameters, to be gathered for forward and for inverse."""
    for layer in model:
        fully_shard(layer)
        register_fsdp_forward_method(layer, "inverse")
    return fully_shard(model)


def main() -> None:
    """Compare."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--backend", default="gloo", choices=("gloo", "nccl"))
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--tensors", action="store_true")
    arguments = parser.parse_args()
    backend = arguments.backend
    device = torch.device("cpu" if backend == "gloo" else f"cuda:{os.environ['LOCAL_RANK']}")
    dist.init_process_group(backend)
    try:
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        alone, model = Flow().to(device), Flow().to(device)
        model.load_state_dict(alone.state_dict())
        images = torch.randn(STEPS, BATCH, 4, 6, 5).to(device)
        expected, expected_gradients = train(alone, images)
        part = images.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]
        if arguments.tensors:
            mesh = init_device_mesh(device.type, (dist.get_world_size(),))
            model = distribute_module(model, mesh)
            images = [DTensor.from_local(x, mesh, [Shard(0)]) for x in part]
            losses, gradients = train(model, images)
            losses = [loss.full_tensor() for loss in losses]
        else:
            wrap = sharded if arguments.sharded else DistributedDataParallel
            losses, gradients = train(wrap(model), part)
            for loss in losses:
                dist.all_reduce(loss)
                loss /= dist.get_world_size()
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
        if arguments.sharded or arguments.tensors:
            gradients = [gradient.full_tensor() for gradient in gradients]
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)
        if dist.get_rank() == 0:
            print(
                f"{dist.get_world_size()} processes, {backend}: losses and gradients of {STEPS} "
                f"steps equal those of one process; last loss {float(expected[-1]):.6f}"
            )
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
    # DistributedDataParallel keeps Gloo's threads beyond destroy_process_group. One that lets
    # go of the last tensor while the interpreter ends aborts the process (PyTorch's pull
    # request 179291), so the process ends without that.
    sys.stdout.flush()
    os._exit(0)
