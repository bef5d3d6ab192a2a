"""Programs of torch.export that run elsewhere, code of inductor, the documented torchrun."""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_module, init_device_mesh
from torch.func import functional_call

import invconv as ic
import invconv_torch as it
from invconv.families.convolutions import Causal, Spectral
from invconv_torch.native.nodes import Rule
from tests.conftest import TORCH_LAYERS, Both, Method
from tests.flows.small_flows import glow
from tests.programs import python
from tests.selected import slow

FEW = ("raster-2d", "periodic-2d", "symmetric-1d", "qr")
MORE = tuple(n for n in TORCH_LAYERS if n not in FEW and "exponential" not in n)
pytestmark = [
    # PyTorch's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex"),
]
ELSEWHERE = """
import sys, torch
program = torch.export.load(sys.argv[1])
*images, wanted = torch.load(sys.argv[2])
torch.testing.assert_close([*program.module()(*images)], wanted, rtol=1e-9, atol=1e-9)
assert not any("invconv" in name for name in sys.modules)
"""


@pytest.mark.parametrize("names", [slow(FEW), slow(MORE)])
def test_it_runs_without_invconv(names: tuple[str, ...], torch_layer: Any, tmp_path: Path) -> None:
    layers, images = zip(*(torch_layer(name) for name in names), strict=True)
    module = Both(layers)
    batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in images)
    program = torch.export.export(module, images, dynamic_shapes=(batch,))
    calls = [str(node.target) for node in program.graph.nodes]
    assert any("invconv." in call for call in calls)  # a solve is one node, whatever the grid
    assert len(calls) < 150 * len(names)
    program = program.run_decompositions(it.decompositions())
    assert "invconv" not in str(program.graph)
    others = [torch.randn(3, *x.shape[1:], dtype=x.dtype) for x in images]
    torch.export.save(program, tmp_path / "program.pt2")
    wanted = [result.detach() for result in module(*others)]
    torch.save([*others, wanted], tmp_path / "images.pt")
    python("-c", ELSEWHERE, tmp_path / "program.pt2", tmp_path / "images.pt")


OPERATIONS = ["solve", "apply", "gram", "spectral_log_det", "matmul", "log_abs_det"]


@pytest.mark.parametrize("operator", OPERATIONS)
def test_a_decomposition_is_the_operator(operator: str) -> None:
    function = torch.ops.invconv.run.default
    decomposed = it.decompositions()[function]
    causal = Causal.of((2, 3), (0, 1), (-1, -1), (1, 2), False).text
    families = {causal: 1}  # the tap at the pixel itself
    pairs = itertools.product(("periodic", "symmetric", "mirror", "odd"), repeat=2)
    for borders in (*pairs, ("zero", "transposed mirror")):
        families[Spectral.of((2, 3), borders, (1, 1)).text] = borders[1] == "periodic"
    for family, place in families.items():
        of_spectrum = operator == "spectral_log_det"
        if of_spectrum and family == causal:
            continue
        w = 0.1 * torch.randn(2, 2, 2, 3, dtype=torch.float64)
        w.reshape(2, 2, -1)[..., int(place)] += 2 * torch.eye(2)
        x, y = torch.randn(2, 3, 2, 6, 5, dtype=torch.float64)
        others: Any = {"gram": (x, y), "spectral_log_det": (w,), "matmul": (w, w.mT)}
        others["solve"] = w, 4e307 * y  # whose spectrum would leave the range of the dtype
        given = others.get(operator, (w, y) if operator != "log_abs_det" else (w.mT @ w,))
        arguments: Any = (operator, family, (6, 5) if of_spectrum else (0,), *given)
        got = decomposed(*arguments)
        torch.testing.assert_close(got, function(*arguments), rtol=1e-10, atol=1e-10)
        with FakeTensorMode():  # on a device alone: nothing is made on the CPU
            there = [torch.empty(t.shape, dtype=t.dtype, device="lazy") for t in given]
            elsewhere = decomposed(*arguments[:3], *there)
        assert (elsewhere.device.type, elsewhere.shape) == ("lazy", got.shape)


@pytest.mark.parametrize(("taps", "n"), [([1.0, 1.0], 2), ([1.0, 0.0, 1.0], 4)])
def test_a_decomposition_has_the_zeros_of_a_spectrum(taps: list[float], n: int) -> None:
    """Of a half turn and of a quarter."""
    family = Spectral.of((len(taps),), ("periodic",), (1,)).text
    ours = torch.ops.invconv.run.default
    w, y = torch.eye(2)[..., None] * torch.tensor(taps), torch.randn(1, 2, n)
    for run in (ours, it.decompositions()[ours]):
        assert run("spectral_log_det", family, (n,), w.double()) == -torch.inf
        assert not run("solve", family, (0,), w.double(), y.double()).isfinite().any()


@pytest.mark.parametrize("name", ["periodic-2d", "symmetric-1d", slow("emerging-2d"), slow("plu")])
def test_a_strict_export(name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(name)
    module = Both([layer])
    program = torch.export.export(module, (x.requires_grad_(),), strict=True).module()
    torch.testing.assert_close(program(x), module(x))
    found, wanted = (
        torch.autograd.grad(
            sum((r**2).sum() for r in run(x)), [x, *dict(sorted(run.named_parameters())).values()]
        )
        for run in (program, module)
    )
    torch.testing.assert_close(found, wanted)


def test_a_strict_export_has_the_numbers_of_splines() -> None:
    x = torch.randn(2, 9, dtype=torch.float64)
    program = torch.export.export(Method(ic, "spline_filter"), (x,), strict=True)
    torch.testing.assert_close(program.module()(x), ic.spline_filter(x))


def test_least_squares_are_of_one_grid() -> None:
    module = Method(ic.PeriodicConv(torch.ones(1, 1, 3)), "least_squares")
    dynamic = {2: torch.export.Dim.DYNAMIC}
    with pytest.raises(Exception, match="your code specialized it"):  # PyTorch's words
        torch.export.export(module, (torch.randn(2, 1, 8),), dynamic_shapes=(dynamic,))


def test_what_has_no_decomposition() -> None:
    decomposed = it.decompositions()[torch.ops.invconv.run.default]
    for operation in Rule.rules.keys() - OPERATIONS:  # those of filters and exponentials, and more
        with pytest.raises(NotImplementedError, match=f"got {operation}; leave our operators in"):
            decomposed(operation, "", (0,), torch.zeros(1))
    for layer in (it.EmergingConv1d(2), it.SymmetricConv1d(2), it.ActNorm(2)):
        x = torch.randn(3, 2, 5)
        dynamic = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(layer, (torch.randn(2, 2, 4),), dynamic_shapes=dynamic)
        refused = pytest.raises(NotImplementedError, match="expected a fixed grid, got a dynamic")
        with nullcontext() if isinstance(layer, it.ActNorm) else refused:
            program = program.run_decompositions(it.decompositions())
        torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.slow
def test_inductor_trains_and_samples() -> None:
    """Of complex numbers, as a PeriodicConv's log-determinant has them, it has to see none."""
    kinds = it.PeriodicConv2d, it.SymmetricConv2d, it.ExponentialConv2d, it.ActNorm
    flow = it.Chain([*(kind(3) for kind in kinds), it.EmergingConv2d(3, mixing="qr")])
    weights, x = list(flow.parameters()), torch.randn(4, 3, 6, 6)

    def loss(x: Any) -> Any:
        z, log_det = flow(x)
        return (0.5 * z.square().sum((1, 2, 3)) - log_det).mean()

    torch._dynamo.reset()
    step = torch.compile(loss)
    for _ in range(2):  # the parameters of the second step are those that the first one left
        gradients = torch.autograd.grad(step(x), weights)
        expected = torch.autograd.grad(loss(x), weights)
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            torch._foreach_sub_(weights, [1e-4 * g for g in gradients])
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(flow.inverse)(x), flow.inverse(x))


@pytest.mark.parametrize("transform", ["jvp", "grad of grad", "vmap of grad"])
def test_compiled_transforms_that_would_lose_derivatives_are_refused(transform: str) -> None:
    def loss(w: Any) -> Any:
        return (ic.Conv1x1(w).forward(torch.ones(1, 2, 3)) ** 2).sum()

    outside: dict[str, Callable[[Any], Any]] = {
        "jvp": lambda w: torch.func.jvp(loss, (w,), (w,))[1],
        "grad of grad": torch.func.grad(lambda w: torch.func.grad(loss)(w).sum()),
        "vmap of grad": lambda w: torch.func.vmap(torch.func.grad(loss))(w[None]),
    }
    torch._dynamo.reset()
    with pytest.raises(Exception, match="would lose derivatives"):
        torch.compile(outside[transform], fullgraph=True, backend="eager")(torch.randn(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["periodic-2d", "exponential-2d"])
def test_compile_around_torch_func(name: str, torch_layer: Any) -> None:
    """A gradient is compiled; what the compiler would take for zero in silence runs as it is."""
    layer, x = torch_layer(name)
    names = [name for name, _ in layer.named_parameters()]

    def loss(x: Any, *parameters: Any) -> Any:
        z, log_det = functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return (z * z).sum() - log_det.sum()

    def tangent(*primals: Any) -> Any:
        return torch.func.jvp(loss, primals, primals)[1]

    def of_gradient(*primals: Any) -> Any:
        return torch.func.grad(lambda *p: (torch.func.grad(loss)(*p) ** 2).sum())(*primals)

    gradient = torch.func.grad(loss, argnums=tuple(range(1 + len(names))))
    for primals in ((x, *layer.parameters()), (x, *(p.detach() for p in layer.parameters()))):
        torch._dynamo.reset()
        compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*primals), gradient(*primals))
    for function in (tangent, of_gradient):
        with pytest.raises(Exception, match="would lose derivatives"):
            torch.compile(function, fullgraph=True, backend="aot_eager")(*primals)
        compiled = torch.compile(function, backend="aot_eager")
        torch.testing.assert_close(compiled(*primals), function(*primals))


@pytest.mark.slow
def test_ahead_of_time_compiled(tmp_path: Path) -> None:
    """AOTInductor calls our operators where invconv_torch is imported, and needs none of them."""
    layers = [it.AutoregressiveConv2d(3), it.Conv1x1(3, "plu"), it.PeriodicConv2d(3)]
    layers += [it.AutoregressiveConv1d(3), it.SymmetricConv1d(3)]
    module = Both(layers).eval()
    images = (*torch.randn(3, 2, 3, 4, 5), *torch.randn(2, 2, 3, 4))
    with torch.no_grad():
        program = torch.export.export(module, images)
        decomposed = program.run_decompositions(it.decompositions())
        for name, one in (("ours", program), ("decomposed", decomposed)):
            path = str(tmp_path / f"{name}.pt2")
            torch._inductor.aoti_compile_and_package(one, package_path=path)
            compiled = torch._inductor.aoti_load_package(path)
            found, wanted = list(compiled(*images)), module(*images)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture
def mesh() -> Iterator[Any]:
    """Return the mesh of one process; two processes are of the slow run."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_dtensors_of_one_process(torch_layer: Any, mesh: Any) -> None:
    """Both directions with gradients, and what is refused."""
    layer, x = torch_layer("emerging-2d")
    whole = copy.deepcopy(layer)
    images = DTensor.from_local(x, mesh, [Shard(0)])
    with pytest.raises(TypeError, match="x: expected a tensor as the layer's parameters are"):
        layer(images)
    distribute_module(layer, mesh)
    with pytest.raises(NotImplementedError, match="x: expected a DTensor of whole images"):
        layer(DTensor.from_local(x, mesh, [Shard(2)]))
    for ours, theirs in ((layer, whole), (layer.inverse, whole.inverse)):
        found, wanted = ours(images), theirs(x)
        torch.testing.assert_close([a.to_local() for a in found], [*wanted])
        assert found[0].placements == (Shard(0),)
        (found[0].to_local() ** 2).sum().backward()
        (wanted[0] ** 2).sum().backward()
    for one, other in zip(layer.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad.full_tensor(), other.grad)


def test_shared_out_parameters_of_one_process(mesh: Any, tmp_path: Path) -> None:
    """FSDP2 of a layer that begins on "meta", what reads all parameters, and what is refused."""
    with torch.device("meta"):
        layer = it.EmergingConv2d(3, mixing="plu")
    fully_shard(layer, mesh=mesh).to_empty(device="cpu")
    layer.reset_parameters()
    assert "kernel_size=(2, 2)" in repr(layer)
    x, chain, actnorm = torch.randn(2, 3, 4, 5), it.ReversibleChain([layer]), it.ActNorm(3)
    flow = it.flows.Multiscale((3, 4, 5), [actnorm])
    fully_shard(actnorm, mesh=mesh)
    register_fsdp_forward_method(actnorm, "inverse")
    for call in (actnorm.initialize, flow.initialize, chain):  # before a root is gathered
        with pytest.raises(NotImplementedError, match="expected whole parameters, got DTensors"):
            call(x)
    assert flow.prepare().sample(2).shape == x.shape
    it.save(layer, tmp_path / "layer")
    torch.testing.assert_close(it.load(tmp_path / "layer")(x), layer(x))
    assert it.InverseGuard(layer, spatial_shape=(4, 5)).step(layer).digits > 3
    shared, plain = glow("plu"), glow("plu")
    for part in (shared.layers["level0_step0_actnorm"], shared):
        fully_shard(part, mesh=mesh)
        with pytest.raises(NotImplementedError, match=r"model: .* load get_model_state_dict"):
            it.save(shared, tmp_path / "flow")
    whole = get_model_state_dict(shared, options=StateDictOptions(full_state_dict=True))
    plain.load_state_dict(whole)
    it.save(plain, tmp_path / "flow")
    torch.testing.assert_close(it.load(tmp_path / "flow").state_dict(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--sharded"], ["--tensors"]], ids=str)
def test_two_processes_train_as_one(options: list[str]) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = Path(__file__).with_name("torch_ddp.py")
    done = python(*launch, program, *options, timeout=100)
    assert "2 processes, gloo: losses and gradients of 3 steps equal" in done.stdout
