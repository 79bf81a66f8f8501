"""What a backbone must do: checks with linear gates, and with gates that the check opens and shuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import Backbone
from ssl_dc.errors import ConfigError
from ssl_dc.gating.base import Gate, GateFactory, no_gates
from ssl_dc.gating.counting import counted_macs
from ssl_dc.gating.sites import GateSite, Granularity, over_positions
from ssl_dc.norms.base import NormFactory, Position, RouteNorm
from ssl_dc.norms.options import SeparateNormsOptions, SharedNormsOptions
from ssl_dc.norms.separate import SeparateNorms
from ssl_dc.norms.shared import SharedNorms
from ssl_dc.routes import Route
from ssl_dc.testing.check import (
    DoesNotApplyError,
    Subject,
    expect,
    expect_finite_gradient,
    expect_gradient,
    expect_instance,
)
from ssl_dc.testing.compiled import claims_to_compile, compiled
from ssl_dc.testing.counterparts import LinearGate, SwitchGate, random_images

ROWS = 4
SIZE = 32
OTHER_SIZE = 48


def is_a_backbone(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.Backbone`."""
    expect_instance(subject.build(SeparateNorms(SeparateNormsOptions()).layer, no_gates), Backbone)


def features_have_the_declared_width(subject: Subject) -> None:
    """Both routes give finite float32 features (N, feature_dim), in both modes, at two image sizes if it takes several."""
    backbone = _backbone(subject)
    for size in _sizes(backbone):
        for route in Route.BOTH:
            for training in (True, False):
                features, _ = backbone.train(training)(random_images(ROWS, size), route)
                expect(
                    features.shape == (ROWS, backbone.feature_dim) and features.dtype is torch.float32,
                    f"expected float32 features of the shape ({ROWS}, {backbone.feature_dim}) on the {route} route at"
                    f" {size} px, saw {features.dtype} {tuple(features.shape)}",
                )
                expect(bool(features.isfinite().all()), f"expected finite features on the {route} route, saw others")


def gate_sites_are_declared_as_they_are(subject: Subject) -> None:
    """Each gate site is a `GatePoint` that asks for one gate, with its own name, real widths and layers that exist."""
    declared: list[GateSite] = []

    def factory(site: GateSite) -> Gate:
        declared.append(site)
        return SwitchGate(site)

    backbone = _backbone(subject, factory)
    points = backbone.gate_points()
    expect(
        [point.site for point in points] == declared,
        f"expected each GatePoint's site to be asked a gate for once, in order, saw {len(points)} points and"
        f" {len(declared)} questions",
    )
    names = [site.name for site in declared]
    expect(len(set(names)) == len(names), f"expected names of sites that differ, saw {sorted(names)}")
    backbone(random_images(ROWS, SIZE), Route.GATED)
    layers = {layer.name for layer in backbone.cost_model(SIZE).layers if not layer.gate}
    for point in points:
        site, gate = point.site, point.gate
        seen = gate.seen_channels if isinstance(gate, SwitchGate) else None
        expect(seen == site.in_channels, f"expected the gate at {site.name} to see {site.in_channels} channels, saw {seen}")
        if site.granularity is not Granularity.CHANNEL:
            expect(
                site.channels == 1,
                f"expected a mask of width 1 at the {site.granularity} site {site.name}, saw {site.channels}",
            )
        expect(bool(site.layers), f"expected the layers that {site.name} saves, saw none")
        unknown = set(site.layers) - layers
        expect(
            not unknown,
            f"expected {site.name} to save layers that the dense route runs, saw {sorted(unknown)}",
        )


def masks_come_with_the_gated_route_only(subject: Subject) -> None:
    """The gated route gives a mask (N, channels) for each gated site. The dense route gives none and runs no gate."""
    backbone = _gated_backbone(subject)
    ran = []
    for point in backbone.gate_points():
        if point.gate is not None:
            point.gate.register_forward_hook(lambda gate, _inputs, _mask: ran.append(gate))
    _, masks = backbone(random_images(ROWS, SIZE), Route.DENSE)
    expect(not masks and not ran, f"expected no masks and no gate run on the dense route, saw {len(masks)} and {len(ran)}")
    _, masks = backbone(random_images(ROWS, SIZE), Route.GATED)
    expected = {point.site.name: (ROWS, point.site.channels) for point in backbone.gate_points() if point.gate is not None}
    seen = {site: tuple(mask.shape) for site, mask in masks.items()}
    expect(seen == expected, f"expected the masks {expected} on the gated route, saw {seen}")


def open_masks_change_nothing(subject: Subject) -> None:
    """With every mask open and shared batch norms, the gated route gives exactly the features of the dense route."""
    backbone, _ = _switched(subject, SharedNorms(SharedNormsOptions()).layer)
    images = random_images(ROWS, SIZE)
    gated, dense = (backbone(images, route)[0] for route in (Route.GATED, Route.DENSE))
    expect(
        torch.equal(gated, dense),
        f"expected the dense route's features with every mask open, saw them differ by {(gated - dense).abs().max():g}",
    )


def without_gates_the_routes_are_one(subject: Subject) -> None:
    """Without gates and with shared batch norms, the gated route gives the features of the dense route, and no masks."""
    backbone = _backbone(subject, no_gates, SharedNorms(SharedNormsOptions()).layer).eval()
    images = random_images(ROWS, SIZE)
    (gated, masks), (dense, _) = (backbone(images, route) for route in (Route.GATED, Route.DENSE))
    expect(not masks, f"expected no masks without gates, saw those of {sorted(masks)}")
    expect(torch.equal(gated, dense), "expected the same features on both routes without gates, saw others")


def a_shut_mask_saves_its_layers(subject: Subject) -> None:
    """With the mask of a site shut, the layers that it saves have no effect, so they need not be computed."""
    backbone, switches = _switched(subject)
    images = random_images(2, SIZE)
    with torch.no_grad():
        for point in backbone.gate_points():
            switch = switches[point.site.name]
            switch.mask.zero_()
            expected, _ = backbone(images, Route.GATED)
            weights = [_weight(backbone, layer) for layer in _with_weights(backbone, point.site.layers)]
            kept = [weight.clone() for weight in weights]
            for weight in weights:
                weight.add_(torch.randn(weight.shape))
            seen, _ = backbone(images, Route.GATED)
            expect(
                torch.equal(seen, expected),
                f"expected {', '.join(point.site.layers)} to have no effect with {point.site.name} shut, saw the features"
                f" change by {(seen - expected).abs().max():g}",
            )
            for weight, values in zip(weights, kept, strict=True):
                weight.copy_(values)
            switch.mask.fill_(1)


def a_half_shut_mask_saves_half_of_its_layers(subject: Subject) -> None:
    """With half of every channel mask shut, no more weights have an effect than the cost model counts."""
    backbone, switches = _switched(subject)
    points = [point for point in backbone.gate_points() if point.site.granularity is Granularity.CHANNEL]
    if not points:
        raise DoesNotApplyError("it declares no channel sites")
    open_shares: dict[str, float] = {}
    for point in points:
        mask = switches[point.site.name].mask
        mask[: len(mask) // 2] = 0
        for layer in _with_weights(backbone, point.site.layers):
            open_shares[layer] = open_shares.get(layer, 1.0) * float(mask.mean())
    used = _share_with_effect(backbone, open_shares)
    for layer, share in open_shares.items():
        expect(
            used[layer] <= share + 1e-6,
            f"expected at most {share:.3f} of the weights of {layer} to have an effect under half-shut masks, saw"
            f" {used[layer]:.3f}",
        )


def a_shut_position_saves_its_layers(subject: Subject) -> None:
    """Where a mask of positions is shut, the outputs of the layers that its site saves have no effect."""
    backbone, switches = _switched(subject, grid=(2, 2))
    points = [point for point in backbone.gate_points() if point.site.granularity is Granularity.POSITION]
    if not points:
        raise DoesNotApplyError("it declares no position sites")
    for point in points:
        mask = switches[point.site.name].mask
        mask[1:] = 0
        outputs = _outputs_of(backbone, point.site.layers)
        for layer, output in outputs.items():
            shut = 1 - over_positions(mask[None], point.site.grid, output.shape[2:])
            gradient = torch.zeros(()) if output.grad is None else output.grad
            expect(
                not bool((gradient * shut).any()),
                f"expected {layer} to have no effect at the positions that {point.site.name} shuts, saw"
                f" {int((gradient * shut != 0).sum())} outputs that have one",
            )
        mask.fill_(1)


def an_open_mask_uses_its_layers(subject: Subject) -> None:
    """With every mask open, the layers that a site saves have an effect, so that shutting it does save something."""
    backbone, _ = _switched(subject)
    points = backbone.gate_points()
    layers = {layer: 1.0 for point in points for layer in _with_weights(backbone, point.site.layers)}
    for layer, share in _share_with_effect(backbone, layers).items():
        expect(share > 0, f"expected the weights of {layer} to have an effect with every mask open, saw none")


def declared_cost_is_the_counted_cost(subject: Subject) -> None:
    """The cost model gives the MACs of each route for one image as torch counts them, at each size that is tried."""
    backbone = _backbone(subject).eval()
    for size in _sizes(backbone):
        cost = backbone.cost_model(size)
        whole = sum(layer.macs for layer in cost.layers)
        for route, declared in ((Route.DENSE, cost.dense_macs), (Route.GATED, whole)):
            counted = counted_macs(backbone, random_images(1, size), route)
            expect(
                declared == counted,
                f"expected a declared cost of {counted:,} MACs, as counted on the {route} route at {size} px, saw"
                f" {declared:,}",
            )


def every_parameter_gets_a_gradient(subject: Subject) -> None:
    """Both routes together give every parameter a finite gradient, also those of the gates and of each route's norms."""
    has_sites = any(_granularities(subject))
    # without gate sites, nothing takes the gated route, so its norms get no gradient
    backbone = _backbone(subject, norms=None if has_sites else SharedNorms(SharedNormsOptions()).layer)
    images = random_images(ROWS, SIZE)
    features = [backbone(images, route)[0] for route in Route.BOTH]
    sum(((one * torch.randn(one.shape)).sum() for one in features), start=torch.zeros(())).backward()
    for name, p in backbone.named_parameters():
        if p.requires_grad:
            expect_gradient(name, p, " from the two routes together")


def batch_norms_come_from_the_policy_and_are_told_the_route(subject: Subject) -> None:
    """Every batch norm comes from the norm factory and is told the route of the images (without sites: the dense one)."""
    told: dict[RouteNorm, list[Route]] = {}

    def note(norm: RouteNorm, arguments: tuple[Tensor, Route]) -> None:
        if norm in told:  # the copies of a backbone that tries itself out have the hook, too
            told[norm].append(arguments[1])

    def factory(channels: int, position: Position) -> RouteNorm:
        norm = SeparateNorms(SeparateNormsOptions()).layer(channels, position)
        told[norm] = []
        norm.register_forward_pre_hook(note)
        return norm

    backbone = _backbone(subject, no_gates, factory)
    for route in Route.BOTH if backbone.gate_points() else [Route.DENSE]:
        backbone(random_images(ROWS, SIZE), route)
        wrong = [norm for norm, routes in told.items() if set(routes) != {route}]
        expect(
            not wrong, f"expected every norm to be told the {route} route, saw {len(wrong)} of {len(told)} told otherwise"
        )
        for routes in told.values():
            routes.clear()
    known = {id(module) for norm in told for module in norm.modules()}
    own = [n for n, m in backbone.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and id(m) not in known]
    expect(not own, f"expected batch norms from the norm factory only, saw its own: {', '.join(own[:3])}")


def evaluation_is_deterministic_and_image_by_image(subject: Subject) -> None:
    """In evaluation mode an image has the same features each time, whichever images share its batch."""
    backbone = _backbone(subject).eval()
    images = random_images(ROWS, SIZE)
    for route in Route.BOTH:
        with torch.no_grad():
            features, again = (backbone(images, route)[0] for _ in range(2))
            alone = torch.cat([backbone(image[None], route)[0] for image in images])
        expect(torch.equal(again, features), f"expected the same features twice on the {route} route, saw others")
        expect(
            torch.allclose(alone, features, rtol=1e-3, atol=1e-4 * float(features.abs().max())),
            f"expected the same features of images one by one on the {route} route, saw them differ by"
            f" {(alone - features).abs().max():g}",
        )


def it_works_under_bf16_and_channels_last(subject: Subject) -> None:
    """Under bfloat16 autocast, in channels-last memory as in training, both routes give finite features and gradients."""
    backbone = _backbone(subject)
    backbone.to(memory_format=torch.channels_last)
    images = random_images(ROWS, SIZE).contiguous(memory_format=torch.channels_last)
    for route in Route.BOTH:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, masks = backbone(images, route)
        expect(bool(features.isfinite().all()), f"expected finite features on the {route} route, saw others")
        for site, mask in masks.items():
            expect(bool(((mask == 0) | (mask == 1)).all()), f"expected a mask of 0 and 1 at {site}, saw other values")
        features.float().square().sum().backward()
    for name, p in backbone.named_parameters():
        expect_finite_gradient(name, p)


def state_is_saved_whole(subject: Subject) -> None:
    """A new backbone with the state of a trained one gives exactly the same features on both routes."""
    backbone, again = _backbone(subject), _backbone(subject)
    images = random_images(ROWS, SIZE)
    for route in Route.BOTH:
        backbone(images, route)
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(0.01 * torch.randn(p.shape))
    again.load_state_dict(backbone.state_dict())
    for route in Route.BOTH:
        expected, seen = (one.eval()(images, route)[0] for one in (backbone, again))
        expect(torch.equal(expected, seen), f"expected the same features on the {route} route from the saved state")


def compiles_whole_if_it_claims_to(subject: Subject) -> None:
    """If its options say `compiles = True`, torch.compile traces each route as one graph, with the same features."""
    claims_to_compile(subject)
    backbone = _backbone(subject)
    images = random_images(ROWS, SIZE)
    for route in Route.BOTH:
        expected, _ = backbone(images, route)
        seen, _ = compiled(backbone.forward)(images, route)
        expect(
            torch.allclose(expected, seen, rtol=1e-3, atol=1e-4 * float(expected.detach().abs().max())),
            f"expected the same features on the {route} route when compiled, saw them differ by"
            f" {(expected - seen).abs().max():g}",
        )
        seen.sum().backward()


def _backbone(subject: Subject, gates: GateFactory | None = None, norms: NormFactory | None = None) -> Backbone:
    """The backbone with linear gates at its channel sites, or at sites of another kind if it has no channel sites."""
    norms = norms or SeparateNorms(SeparateNormsOptions()).layer
    if gates is None:
        found = set(_granularities(subject))
        chosen = next((kind for kind in Granularity if kind in found), None)

        def gates(site: GateSite) -> Gate | None:
            return LinearGate(site) if site.granularity is chosen else None

    backbone: Backbone = subject.build(norms, gates)
    return backbone


def _sizes(backbone: Backbone) -> tuple[int, ...]:
    """The image sizes to try: 32 and 48 px, or 32 only for a backbone whose cost model refuses the other."""
    try:
        backbone.cost_model(OTHER_SIZE)
    except ConfigError:
        return (SIZE,)
    return (SIZE, OTHER_SIZE)


def _granularities(subject: Subject) -> Iterator[Granularity]:
    for point in _backbone(subject, no_gates).gate_points():
        yield point.site.granularity


def _gated_backbone(subject: Subject) -> Backbone:
    backbone = _backbone(subject)
    if not backbone.gate_points():
        raise DoesNotApplyError("it declares no gate sites")
    return backbone


def _switched(
    subject: Subject, norms: NormFactory | None = None, grid: tuple[int, int] = (1, 1)
) -> tuple[Backbone, dict[str, SwitchGate]]:
    """The backbone in evaluation mode with an open switch at each of its sites; those of positions have a grid."""
    switches: dict[str, SwitchGate] = {}

    def factory(site: GateSite) -> Gate:
        switches[site.name] = SwitchGate(site.on_grid(*grid) if site.granularity is Granularity.POSITION else site)
        return switches[site.name]

    backbone = _backbone(subject, factory, norms).eval()
    if not switches:
        raise DoesNotApplyError("it declares no gate sites")
    _awake(backbone)
    return backbone, switches


@torch.no_grad()
def _awake(backbone: nn.Module) -> None:
    """Scale every batch norm by something other than 0, as some networks start with branches that are scaled by 0."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            module.weight.uniform_(0.5, 1.5)


def _with_weights(backbone: nn.Module, layers: Iterable[str]) -> list[str]:
    """The layers that have weights, which the products of attention do not."""
    return [layer for layer in layers if not isinstance(backbone.get_submodule(layer), AttentionProducts)]


def _weight(backbone: nn.Module, layer: str) -> Tensor:
    weight = backbone.get_submodule(layer).weight
    expect(isinstance(weight, Tensor), f"expected a layer with a weight at {layer}, saw {type(weight).__name__}")
    return weight  # type: ignore[return-value]  # it is a tensor, as was just checked


def _outputs_of(backbone: Backbone, layers: Iterable[str]) -> dict[str, Tensor]:
    """What layers put out on the gated route, with the gradient of the features."""
    outputs: dict[str, Tensor] = {}

    def keep(layer: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            output.retain_grad()
            outputs[layer] = output

        return hook

    handles = [backbone.get_submodule(layer).register_forward_hook(keep(layer)) for layer in layers]
    features, _ = backbone(random_images(ROWS, SIZE), Route.GATED)
    for handle in handles:
        handle.remove()
    (features * torch.randn(features.shape)).sum().backward()
    return outputs


def _share_with_effect(backbone: Backbone, layers: dict[str, float]) -> dict[str, float]:
    """The share of each layer's weights that the features of the gated route depend on, by their gradient."""
    backbone.zero_grad()
    features, _ = backbone(random_images(ROWS, SIZE), Route.GATED)
    (features * torch.randn(features.shape)).sum().backward()
    shares = {}
    for layer in layers:
        gradient = _weight(backbone, layer).grad
        shares[layer] = 0.0 if gradient is None else float((gradient != 0).float().mean())
    return shares


CHECKS = (
    is_a_backbone,
    features_have_the_declared_width,
    gate_sites_are_declared_as_they_are,
    masks_come_with_the_gated_route_only,
    open_masks_change_nothing,
    without_gates_the_routes_are_one,
    a_shut_mask_saves_its_layers,
    a_half_shut_mask_saves_half_of_its_layers,
    a_shut_position_saves_its_layers,
    an_open_mask_uses_its_layers,
    declared_cost_is_the_counted_cost,
    every_parameter_gets_a_gradient,
    batch_norms_come_from_the_policy_and_are_told_the_route,
    evaluation_is_deterministic_and_image_by_image,
    it_works_under_bf16_and_channels_last,
    state_is_saved_whole,
    compiles_whole_if_it_claims_to,
)
