"""Networks are compiled and run beside other threads and across processes."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from helpers.forked import run_forked
from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor, compiled
from ssl_dc.compiled.steps.call import Call
from ssl_dc.gating.base import Gate
from ssl_dc.routes import Route
from tests.compiled.test_executor import BACKENDS, OwnBackbone, assert_same
from tests.helpers.random_networks import random_encoder

MODULE_CALL = nn.Module.__call__
MODULE_GETATTR = nn.Module.__getattr__


class Watching(Backbone):
    """Looks, while it is traced, whether torch's modules are as they were; another thread would see the same."""

    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:  # noqa: ARG002
        assert nn.Module.__call__ is MODULE_CALL
        assert nn.Module.__getattr__ is MODULE_GETATTR
        return (self.conv(images * self.scale) + self.scale.flatten()[0]).mean(dim=(2, 3)), {}


def test_tracing_leaves_torch_as_it_is() -> None:
    backbone = Watching().eval()
    images = torch.randn(2, 3, 8, 8)
    executor = compiled(backbone, Route.DENSE)
    with torch.no_grad():
        torch.testing.assert_close(executor(images).features, backbone(images, Route.DENSE)[0])
    assert "forward" not in vars(backbone.conv)


def test_tracing_leaves_the_backbone_as_it_is() -> None:
    backbone = OwnBackbone().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    capture(backbone, Route.GATED)
    assert backbone.training
    assert all(module.training for module in backbone.modules())
    assert all("forward" not in vars(module) for module in backbone.modules())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.long
def test_threads_compile_while_others_infer() -> None:
    encoder = random_encoder()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = encoder(images, Route.GATED).features
    compiling = threading.Event()
    failures: list[BaseException] = []

    def infer() -> None:
        try:
            while not compiling.is_set():
                with torch.no_grad():
                    assert torch.equal(encoder(images, Route.GATED).features, expected)
        except BaseException as error:
            failures.append(error)

    def compile_and_run(_: int) -> Tensor:
        return compiled(encoder.backbone(Route.GATED), Route.GATED)(images).features

    inferring = threading.Thread(target=infer)
    inferring.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(compile_and_run, range(16)))
    finally:
        compiling.set()
        inferring.join()
    assert not failures
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    torch.testing.assert_close(answers[0], expected, rtol=1e-4, atol=1e-5)
    assert nn.Linear(2, 2)(torch.ones(1, 2)).shape == (1, 2)


BUSY = """
import os, signal, sys, threading
import torch
from tests.helpers.random_networks import random_encoder
from ssl_dc.compiled.executor import compiled
from ssl_dc.routes import Route

torch.set_num_threads(2)
torch.manual_seed(0)
executor = compiled(random_encoder().backbone(Route.GATED), Route.GATED, threads=2, backend=sys.argv[1])
images = torch.randn(4, 3, 64, 64)
expected = executor(images).features
stop = threading.Event()

def busy():
    while not stop.is_set():
        executor(images)

threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for ever is killed
        status = 1
        try:
            answers = (executor(images).features, torch.cat([executor(image[None]).features for image in images]))
            status = 0 if all(torch.allclose(answer, expected, rtol=1e-4, atol=1e-5) for answer in answers) else 2
        finally:
            os._exit(status)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(statuses)
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_child_that_is_forked_beside_a_busy_executor_works(backend: str) -> None:
    done = run_forked(BUSY, backend)
    assert done.stdout.strip() == str([0] * 8), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", [{}, {"gating.name": "convnet_aig"}, {"backbone.name": "resnet50"}], ids=str)
def test_executors_are_pickled_and_copied(backend: str, settings: dict[str, str]) -> None:
    encoder = random_encoder(**settings)
    images = torch.randn(2, 3, 32, 32)
    for route in Route.BOTH:
        executor = compiled(encoder.backbone(route), route, threads=2, backend=backend)
        for same in (pickle.loads(pickle.dumps(executor)), copy.deepcopy(executor)):
            assert (same.backend, same.threads) == (executor.backend, 2)
            assert_same(encoder, route, same, images)
            assert torch.equal(same(images).features, executor(images).features)
            assert torch.equal(same(images).macs, executor(images).macs)
    results = pickle.loads(pickle.dumps(executor(images)))
    assert torch.equal(results.macs, executor(images).macs)


def test_a_strangers_network_is_pickled(tmp_path: os.PathLike[str]) -> None:
    executor = compiled(OwnBackbone().eval(), Route.GATED)
    assert any(isinstance(step, Call) for step in executor.plan.steps)
    images = torch.randn(3, 3, 20, 20)
    path = os.path.join(tmp_path, "executor")
    with open(path, "wb") as file:
        pickle.dump((executor, images, executor(images).features), file)
    program = (
        "import pickle, torch; executor, images, expected = pickle.load(open(r'%s', 'rb'));"
        "print(torch.allclose(executor(images).features, expected, rtol=1e-4, atol=1e-5))"
    )
    done = run_forked(program % path)
    assert done.stdout.strip() == "True", done.stderr


def test_what_cannot_be_pickled_is_said() -> None:
    class Local(OwnBackbone):
        """A class that no other process can import."""

    with pytest.raises((pickle.PicklingError, AttributeError), match="Local"):
        pickle.dumps(compiled(Local().eval(), Route.GATED))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_of_the_backbone_is_shared(backend: str) -> None:
    backbone = OwnBackbone().eval()
    executor = compiled(backbone, Route.GATED, backend=backend)
    images = torch.randn(2, 3, 20, 20)
    before = executor(images).features
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    assert torch.equal(executor(images).features, before)


class CountingGate(Gate):
    """A gate that looks at more than means, and counts the images of each call."""

    macs = 0
    calls: list[int]

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        self.calls.append(len(x))
        return (x.amax(dim=(2, 3))[:, : len(threshold)] > 1).float()


def counted(executor: Executor) -> list[list[int]]:
    """The calls of each gate of an executor, kept from now on."""
    calls = []
    for step in executor.plan.steps:
        gate = getattr(step, "gate", None)
        if gate is not None:
            gate.calls = []
            calls.append(gate.calls)
    return calls


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_gate_in_torch_is_called_once_a_batch(backend: str, threads: int) -> None:
    CountingGate.calls = []
    backbone = OwnBackbone(CountingGate).eval()
    executor = compiled(backbone, Route.GATED, threads=threads, backend=backend)
    images = torch.randn(5, 3, 20, 20) * torch.tensor([0.1, 1, 2, 3, 9.0])[:, None, None, None]
    calls = counted(executor)
    executed = executor(images)
    assert calls == [[5], [5], [5]]
    with torch.no_grad():
        expected, masks = backbone(images, Route.GATED)
    torch.testing.assert_close(executed.features, expected, rtol=1e-4, atol=1e-5)
    assert {site: mask.tolist() for site, mask in executed.masks.items()} == {s: m.tolist() for s, m in masks.items()}
    assert len({tuple(mask.tolist()) for mask in executed.masks["branch"]}) == 2  # the branch is open for some images only


def test_a_large_batch_is_run_in_parts_that_memory_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.compiled.native.ARENAS_BYTES", 1)
    monkeypatch.setattr("ssl_dc.compiled.torch_backend.IMAGES_AT_ONCE", 2)
    CountingGate.calls = []
    images = torch.randn(5, 3, 20, 20)
    features = []
    for backend in BACKENDS:
        executor = compiled(OwnBackbone(CountingGate, seed=1).eval(), Route.GATED, threads=2, backend=backend)
        calls = counted(executor)
        features.append(executor(images).features)
        assert calls == [[2, 2, 1]] * 3
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-5)
