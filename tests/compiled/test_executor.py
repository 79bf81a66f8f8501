"""The executor gives what the reference routes give, whatever the network, the gates, the batch and the backend."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ssl_dc
from helpers.forked import run_forked
from ssl_dc.backbones.base import Backbone, GatePoint, Masks
from ssl_dc.compiled import executor as executor_module
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor, compiled
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import kernel
from ssl_dc.compiled.native import NativeProgram
from ssl_dc.compiled.native_backend import NativeBackend
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.elementwise import Relu
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import MaxPool, Mean
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import RunError
from ssl_dc.gating.base import Gate, GateFactory, no_gates
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.native import library as native_library
from ssl_dc.routes import Route
from tests.helpers.random_networks import random_encoder

BACKENDS = ("native", "torch")


@pytest.fixture(autouse=True)
def _same_images_every_time() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def assert_same(encoder: ssl_dc.Encoder, route: Route, executor: Executor, images: Tensor) -> None:
    expected, executed = encoder(images, route), executor(images)
    difference = (executed.features - expected.features).abs().max() / expected.features.abs().max()
    assert float(difference) < 1e-5
    assert {site: mask.tolist() for site, mask in executed.masks.items()} == {
        site: mask.tolist() for site, mask in expected.masks.items()
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("route", Route.BOTH)
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar", "strided"])
def test_same_as_the_reference(backend: str, route: Route, gating: str, backbone: str, stem: str) -> None:
    encoder = random_encoder(**{"gating.name": gating, "backbone.name": backbone, "backbone.stem": stem})
    executor = compiled(encoder.backbone(route), route, backend=backend)
    for batch in (1, 3):
        assert_same(encoder, route, executor, torch.randn(batch, 3, 32, 32))


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("width", [8, 64])
def test_the_kernel_does_the_whole_of_a_built_in_network(gating: str, backbone: str, width: int) -> None:
    """The kernel stops for no step: that would cost more time than the gates save."""
    settings = {"gating.name": gating, "backbone.name": backbone, "backbone.width": width}
    network = random_encoder(**settings).backbone(Route.GATED)
    for route in Route.BOTH:
        plan = fuse(capture(network, route))
        assert {type(step) for step in plan.steps} <= {Conv, Decide, MaxPool, Mean, Relu}
        runner = NativeBackend().build(plan, 1)
        assert NativeProgram(plan, (32, 32), kernel(), runner._weights, 1).host_steps == {}


@pytest.mark.parametrize("encoder_name", ["shared", "double"])
@pytest.mark.parametrize("norm", ["separate", "shared"])
def test_same_for_every_encoder_and_norm_policy(encoder_name: str, norm: str) -> None:
    encoder = random_encoder(**{"encoder.name": encoder_name, "norm.name": norm})
    for route in Route.BOTH:
        assert_same(encoder, route, compiled(encoder.backbone(route), route), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("threshold", [-1e9, 1e9], ids=["all open", "all shut"])
def test_all_open_and_all_shut(backend: str, gating: str, threshold: float) -> None:
    encoder = random_encoder(**{"gating.name": gating})
    for module in encoder.modules():
        if isinstance(module, Gate):
            module.thresholds.fill_(threshold)
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, backend=backend)
    images = torch.randn(2, 3, 32, 32)
    assert_same(encoder, Route.GATED, executor, images)
    assert {float(mask.mean()) for mask in executor(images).masks.values()} == {float(threshold < 0)}


def test_images_of_several_sizes_in_turn() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED)
    for size in (32, 48, 32):
        assert_same(encoder, Route.GATED, executor, torch.randn(2, 3, size, size))


def test_a_batch_gives_what_its_images_give() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, threads=3)
    images = torch.randn(7, 3, 32, 32)
    together, apart = executor(images), [executor(image[None]) for image in images]
    torch.testing.assert_close(together.features, torch.cat([one.features for one in apart]), rtol=0, atol=0)
    assert len(executor(images[:0]).features) == 0


def test_cost_is_that_of_the_reference() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        masks = encoder(images, Route.GATED).masks
    cost = encoder.cost_model(32)
    assert executor(images).macs.tolist() == cost.gated_macs(masks).tolist()
    torch.testing.assert_close(executor(images).ratio.float(), cost.ratio(masks))


def test_weights_are_copied() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.DENSE), Route.DENSE)
    images = torch.randn(1, 3, 32, 32)
    before = executor(images).features
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    assert torch.equal(executor(images).features, before)


def test_nothing_that_is_shut_is_computed() -> None:
    """A channel's weights may be anything where its gate is shut: they are not read."""
    encoder = random_encoder()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        masks = encoder(images, Route.GATED).masks
    poisoned = copy.deepcopy(encoder)
    block = poisoned.backbone(Route.GATED).stages["layer2"][0]
    shut = masks["stages.layer2.0.hidden"][0] == 0
    assert 0 < int(shut.sum()) < len(shut)
    with torch.no_grad():
        block.conv1.weight[shut] = torch.nan
        block.conv2.weight[:, shut] = torch.nan
    for backend in BACKENDS:
        executor = compiled(poisoned.backbone(Route.GATED), Route.GATED, backend=backend)
        with torch.no_grad():
            expected = encoder(images, Route.GATED).features
        torch.testing.assert_close(executor(images).features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("route", Route.BOTH)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(backend: str, route: Route, value: float) -> None:
    encoder = random_encoder()
    images = torch.randn(2, 3, 32, 32)
    images[0, 0, 3, 3] = value
    executor = compiled(encoder.backbone(route), route, backend=backend)
    with pytest.warns(RuntimeWarning, match="of 2 images 1 holds NaN or infinity"):
        features = executor(images).features
    assert not features[0].isfinite().any()
    assert features[1].isfinite().all()


def test_what_was_asked_last_is_kept_while_other_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = compiled(random_encoder().backbone(Route.GATED), Route.GATED)
    taken: list[bool] = []

    def told(*_: object, **__: object) -> None:
        with ThreadPoolExecutor(1) as pool:
            free = pool.submit(executor._one_call_at_a_time._lock.acquire, blocking=False).result()
        taken.append(not free)

    monkeypatch.setattr(executor_module, "warn_beyond", told)
    images = torch.randn(1, 3, 32, 32)
    for _ in range(2):
        executor(images, 0.3)
    assert taken == [True]


@pytest.mark.long
def test_python_threads_take_turns() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, threads=2)
    images = [torch.randn(1, 3, size, size) for size in (16, 32, 16, 24)]
    expected = [executor(image).features for image in images]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: executor(images[number % 4]).features, range(400)))
    assert all(torch.equal(answer, expected[number % 4]) for number, answer in enumerate(answers))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "a"])
def test_wrong_numbers_of_threads_are_refused(threads: object) -> None:
    with pytest.raises(ValueError, match="threads must be a whole number, at least 1"):
        compiled(OwnBackbone(no_gates), Route.DENSE, threads=threads)


@pytest.mark.long
def test_a_damaged_kernel_is_compiled_again(tmp_path: Path) -> None:
    def load() -> None:
        """In a process of its own, since a library that is loaded stays loaded."""
        done = run_forked("from ssl_dc.compiled.kernel import kernel; kernel()", XDG_CACHE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr

    load()
    (library,) = (tmp_path / "ssl-dc").glob("kernel-*.so")
    whole = library.stat().st_size
    library.write_bytes(b"no library")
    load()
    assert library.stat().st_size == whole


class OwnGate(Gate):
    """A gate that looks at more than means, so that no rule says how it decides."""

    macs = 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        return (x[:, : len(threshold), 0, 0] > x[:, : len(threshold), -1, -1]).float()


class OwnBackbone(Backbone):
    """A network with much that the kernel does not know: groups, another activation, concatenation, a linear layer."""

    feature_dim = 6

    def __init__(self, factory: GateFactory = OwnGate, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.act = nn.SiLU()
        self.conv1 = nn.Conv2d(16, 12, 3, padding=1, stride=2)
        self.point = GatePoint(GateSite("hidden", Granularity.CHANNEL, 16, 12, ("conv1", "conv2")), factory)
        self.conv2 = nn.Conv2d(12, 16, 1)
        self.masked = GatePoint(GateSite("masked", Granularity.CHANNEL, 16, 16, ()), factory)
        self.bypass = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 16, 1, bias=False))
        self.branch = GatePoint(GateSite("branch", Granularity.BRANCH, 16, 1, ("conv3",)), factory)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 6)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        x = torch.relu(self.first(images))
        x = torch.cat([x, self.act(self.grouped(x))], dim=1)
        hidden = self.point(self.conv1(x), x, route, masks)
        y = self.masked(self.act(self.conv2(hidden)), x, route, masks) + self.bypass(x)
        y = y + self.branch(self.act(self.conv3(y)), y, route, masks)
        return self.head(y.flatten(2).mean(dim=2)), masks


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_strangers_backbone_and_gate(backend: str, batch: int) -> None:
    backbone = OwnBackbone().eval()
    images = torch.randn(batch, 3, 20, 20)
    for route in Route.BOTH:
        executor = compiled(backbone, route, backend=backend)
        executed = executor(images)
        with torch.no_grad():
            expected, masks = backbone(images, route)
        torch.testing.assert_close(executed.features, expected, rtol=1e-4, atol=1e-5)
        assert {site: mask.tolist() for site, mask in executed.masks.items()} == {s: m.tolist() for s, m in masks.items()}


class Broadcasting(Backbone):
    """A network that adds values of other shapes to the output of a convolution."""

    feature_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(channels, 8, 3) for channels in (3, 8, 8))
        self.offset = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:  # noqa: ARG002
        x = self.conv1(images) + self.offset
        mean = x.mean(dim=(2, 3), keepdim=True)
        x = self.conv2(x) + mean
        return (torch.relu(self.conv3(x)) + self.offset.flatten()[0]).mean(dim=(2, 3)), {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_of_other_shapes(backend: str) -> None:
    backbone = Broadcasting().eval()
    images = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        expected, _ = backbone(images, Route.DENSE)
    executor = compiled(backbone, Route.DENSE, backend=backend)
    torch.testing.assert_close(executor(images).features, expected, rtol=1e-4, atol=1e-5)


class Skipping(Backbone):
    """A network that drops pixels before convolutions, where a stride can stand for it and where none can."""

    feature_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 8, 1, stride=2), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1, padding=1)
        self.conv4, self.conv5 = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:  # noqa: ARG002
        x = self.conv1(images[:, :, ::3, ::3])
        x = self.conv2(x[:, :, ::2, ::2]) + 1
        x = self.conv3(x[:, :, ::2, ::2]) + self.conv3(x[:, :, 1::2, 1::2])
        thinned = x[:, :, ::2, ::2]
        x = self.conv4(thinned) + self.conv5(thinned) + self.conv5(x[:, :, ::2, ::1])[:, :, :, ::2]
        return x[:, :, ::2, ::2].mean(dim=(2, 3)), {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_that_are_dropped(backend: str) -> None:
    backbone = Skipping().eval()
    images = torch.randn(2, 3, 120, 96)
    with torch.no_grad():
        expected, _ = backbone(images, Route.DENSE)
    executor = compiled(backbone, Route.DENSE, backend=backend)
    torch.testing.assert_close(executor(images).features, expected, rtol=1e-4, atol=1e-5)
    strides = {(step.layer, step.stride) for step in executor.plan.steps if isinstance(step, Conv)}
    assert strides == {("conv1", 6), ("conv2", 1), ("conv3", 1), ("conv4", 2), ("conv5", 2), ("conv5", 1)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_route_has_one_budget_for_all_images(backend: str) -> None:
    encoder = random_encoder()
    route = Route.at(0.5)
    assert_same(encoder, route, compiled(encoder.backbone(route), route, backend=backend), torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"one budget for all images, not gated@0\.1,0\.5"):
        compiled(encoder.backbone(route), Route.at([0.1, 0.5]), backend=backend)


def test_what_a_plan_takes_over() -> None:
    plan = fuse(capture(OwnBackbone().eval(), Route.GATED))
    convolutions = {step.layer: step for step in plan.steps if isinstance(step, Conv)}
    assert convolutions["conv1"].out_site == convolutions["conv2"].in_site == "hidden"
    assert convolutions["conv3"].when == "branch"
    assert any(isinstance(step, Call) for step in plan.steps)
    assert [step.site.name for step in plan.steps if isinstance(step, Decide)] == ["hidden", "masked", "branch"]


class Branching(Backbone):
    """A network whose way depends on what it computed."""

    feature_dim = 3

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:  # noqa: ARG002
        if images.mean() > 0:
            return images.mean(dim=(2, 3)), {}
        return images.amax(dim=(2, 3)), {}


def test_a_forward_that_cannot_be_traced_is_refused_by_name() -> None:
    with pytest.raises(RunError, match="Branching's forward cannot be traced"):
        compiled(Branching(), Route.DENSE)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 1, 32, 32),
        torch.zeros(1, 3, 0, 0),
    ],
)
def test_wrong_images_are_refused(images: Tensor) -> None:
    executor = compiled(OwnBackbone(no_gates), Route.DENSE)
    with pytest.raises(ValueError, match=r"images must be float32 \(N, 3, H, W\) on the CPU"):
        executor(images)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"images must be float32 .*, not list"):
        compiled(OwnBackbone(no_gates), Route.DENSE)([1])


def test_other_precisions_are_refused() -> None:
    with pytest.raises(RunError, match=r"must be float32 on the CPU; first\.weight is torch\.bfloat16"):
        compiled(OwnBackbone().to(torch.bfloat16), Route.DENSE)


def test_without_a_compiler_torch_runs_it_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    native_library._library.cache_clear()
    monkeypatch.setenv(native_library.NO_KERNEL, "1")
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED)
    assert executor.backend == "torch"
    assert "switched off by SSL_DC_NO_KERNEL" in executor.why_torch
    assert_same(encoder, Route.GATED, executor, torch.randn(1, 3, 32, 32))
    with pytest.raises(RunError, match="switched off"):
        compiled(encoder.backbone(Route.GATED), Route.GATED, backend="native")
    native_library._library.cache_clear()


def test_a_model_compiles_its_routes() -> None:
    encoder = random_encoder()
    config = resolve([uniform_layer({"data.name": "digits", "backbone.width": 8, "budget.target": 0.9}, "test")]).config
    model = ssl_dc.Model(config, encoder)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.compile_dense()(images).features, model.dense(images), rtol=1e-4, atol=1e-5)
    gated = model.gated(images)
    executed = model.compile_gated(threads=1)(images)
    torch.testing.assert_close(executed.features, gated.features, rtol=1e-4, atol=1e-5)
    assert executed.macs.tolist() == gated.macs.tolist()


def test_a_model_without_gates_has_no_gated_route_to_compile() -> None:
    config = resolve([uniform_layer({"data.name": "digits", "gating.name": "none", "backbone.width": 8}, "test")]).config
    with pytest.raises(RunError, match="no gated route"):
        ssl_dc.Model.untrained(config).compile_gated()
