"""What a gating scheme and its gates must do: checks on gates of two sites, and in a network of two blocks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ssl_dc.backbones.base import Backbone
from ssl_dc.gating.base import Gate, GatingScheme, set_threshold, threshold_fault
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.counting import counted_macs
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.options import SharedNormsOptions
from ssl_dc.norms.shared import SharedNorms
from ssl_dc.plugins.options import GatingOptions
from ssl_dc.routes import Route
from ssl_dc.testing.check import ConformanceError, DoesNotApplyError, Subject, expect, expect_gradient, expect_instance
from ssl_dc.testing.compiled import claims_to_compile, compiled
from ssl_dc.testing.counterparts import SmallBackbone, random_images

BUDGET = 0.3
ROWS = 8
THRESHOLDS = (-16.0, -4.0, -1.0, -0.25, 0.0, 0.25, 1.0, 4.0, 16.0)


def is_a_gating_scheme(subject: Subject) -> None:
    """What the target builds is a `ssl_dc.GatingScheme`."""
    expect_instance(_scheme(subject), GatingScheme)


def gates_are_declared(subject: Subject) -> None:
    """The options have `gates = True` if the scheme has a granularity, and `gates = False` if it gates nothing."""
    granularity, declared = _scheme(subject).granularity, _gates_declared(subject)
    expect(
        granularity is None or isinstance(granularity, Granularity),
        f"expected a Granularity or None, saw {granularity!r}",
    )
    gated = granularity is not None
    expect(
        declared == gated,
        f"expected options with gates = {gated} for the granularity {granularity}, saw gates = {declared}",
    )


def each_site_of_its_granularity_gets_a_gate(subject: Subject) -> None:
    """`gate(site)` is a new `ssl_dc.Gate` with a threshold for each entry of the mask. Other sites get no gate."""
    # The gate acts on the site that it was given; a gate of positions may act on a finer grid.
    scheme = _scheme(subject)
    for kind in Granularity:
        site = _site(kind, 8, 12)
        gate = scheme.make_gate(site)
        if kind not in _kinds(scheme):
            expect(gate is None, f"expected no gate at a {kind} site, saw {gate!r}")
            continue
        if not isinstance(gate, Gate):
            raise ConformanceError(f"expected an ssl_dc.Gate at a {kind} site, saw {gate!r}")
        expect(gate is not scheme.make_gate(site), "expected a new gate each time, saw the same one twice")
        own = site.on_grid(*gate.site.grid) if kind is Granularity.POSITION else site
        expect(gate.site == own, f"expected a gate that acts on {own}, saw one that acts on {gate.site}")
        thresholds = gate.state_dict().get("thresholds")
        expect(
            thresholds is not None and thresholds.shape == (1, own.channels),
            f"expected a buffer 'thresholds' of the shape (1, {own.channels}), saw {thresholds}",
        )


def masks_are_0_or_1(subject: Subject) -> None:
    """In both modes, masks are exactly 0 or 1. Their shape is (N, channels) of the site, their dtype that of the input."""
    for gate, site in _gates(subject):
        for training in (True, False):
            _expect_mask(_mask(gate.train(training), _block_input(site)), site, torch.float32, training)


def masks_are_0_or_1_under_bf16(subject: Subject) -> None:
    """The same holds under bfloat16 autocast, with a bfloat16 input."""
    for gate, site in _gates(subject):
        for training in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mask = _mask(gate.train(training), _block_input(site).bfloat16())
            _expect_mask(mask, site, torch.bfloat16, training)


def evaluation_masks_are_deterministic_and_without_gradient(subject: Subject) -> None:
    """In evaluation mode an image has the same mask each time, whichever images share its batch, and no gradient."""
    for gate, site in _gates(subject):
        gate.eval()
        x = _block_input(site)
        mask = _mask(gate, x)
        expect(not mask.requires_grad, "expected a mask without gradient in evaluation mode, saw one with a gradient")
        expect(torch.equal(_mask(gate, x), mask), "expected the same mask twice in evaluation mode, saw two that differ")
        alone = torch.cat([_mask(gate, image[None]) for image in x])
        expect(
            torch.equal(alone, mask),
            f"expected the same masks of images one by one, saw {int((alone != mask).sum())} of {mask.numel()} entries"
            " differ",
        )


def training_masks_carry_a_gradient_to_every_parameter(subject: Subject) -> None:
    """In training mode, every parameter of the gate gets a finite gradient from the mask, and not all of them are 0."""
    for gate, site in _gates(subject):
        if not list(gate.parameters()):
            raise DoesNotApplyError("its gates have nothing to learn")
        mask = _mask(gate.train(), _block_input(site))
        expect(mask.requires_grad, "expected a mask with a gradient in training mode, saw one without")
        (mask.float() * torch.randn(mask.shape)).sum().backward()
        for name, p in gate.named_parameters():
            expect_gradient(f"the gate's {name}", p, " from its mask")
        expect(
            any(bool(p.grad.any()) for p in gate.parameters() if p.grad is not None),
            "expected a gradient that is not zero for some parameter of the gate, saw only zeros",
        )


def declared_cost_is_the_counted_cost(subject: Subject) -> None:
    """`macs` is the cost of the gate for one image as torch counts it, at any size of the input."""
    for gate, site in _gates(subject):
        for size in (5, 9):
            counted = counted_macs(gate.eval(), _block_input(site, 1, size), gate.thresholds[0])
            expect(
                gate.macs == counted,
                f"expected macs = {counted:,}, as counted for an input of {size}x{size}, saw macs = {gate.macs:,}",
            )


def a_pooled_rule_decides_as_the_gate_does(subject: Subject) -> None:
    """If there is a `pooled_rule`, it decides as the gate does in evaluation mode, at any threshold."""
    ruled = False
    for gate, site in _gates(subject):
        for threshold in THRESHOLDS:
            set_threshold(gate, threshold)
            rule = gate.eval().pooled_rule(gate.thresholds[0])
            if rule is None:
                continue
            ruled = True
            x = _block_input(site, 64)
            with torch.no_grad():
                hidden = torch.relu(x.mean(dim=(2, 3)) @ rule.hidden_weight.T + rule.hidden_bias)
                logits = hidden @ rule.weight.T + rule.bias
                different = (_mask(gate, x) != (logits >= 0)) & (logits.abs() > 1e-5)  # nearer to 0, rounding decides
            expect(
                not bool(different.any()),
                f"expected the rule to decide as the gate, saw {int(different.sum())} of {different.numel()} entries differ"
                f" at the threshold {threshold:g}",
            )
    if not ruled:
        raise DoesNotApplyError("its gates have no pooled rule, so compiled code calls them")


def each_image_may_have_thresholds_of_its_own(subject: Subject) -> None:
    """Called with thresholds (N, channels), a gate decides for each image as with that image's row alone, in both modes."""
    for gate, site in _gates(subject):
        x = _block_input(site)
        rows = torch.linspace(-1, 1, ROWS)[:, None].expand(ROWS, site.channels)
        _expect_mask(gate.train()(x, rows), site, torch.float32, training=True)
        gate.eval()
        seen = gate(x, rows)
        alone = torch.cat([gate(image[None], row) for image, row in zip(x, rows, strict=True)])
        expect(
            torch.equal(seen, alone),
            f"expected the masks of images one by one, each with its own thresholds, saw {int((seen != alone).sum())} of"
            f" {alone.numel()} entries differ",
        )


def the_threshold_has_an_effect(subject: Subject) -> None:
    """A very low threshold opens entries that a very high one shuts, unless the gates say `heeds_threshold = False`."""
    applies = False
    for gate, site in _gates(subject):
        fault = threshold_fault(gate.eval(), _block_input(site, 64))
        expect(not fault, f"expected gates that follow their threshold, saw one that {fault}")
        applies |= gate.heeds_threshold
    if not applies:
        raise DoesNotApplyError("its gates say that they ignore the threshold")


def a_higher_threshold_shuts_more(subject: Subject) -> None:
    """If the threshold has an effect, a higher one never opens more in evaluation mode."""
    if not _is_steered(subject):
        raise DoesNotApplyError("its gates ignore the threshold")
    for gate, site in _gates(subject):
        shares = _open_shares(gate, site)
        for (low, before), (high, after) in pairwise(zip(THRESHOLDS, shares, strict=True)):
            expect(
                after <= before,
                f"expected no more to be open at the threshold {high:g} than at {low:g}, saw a share of {after:.3f} instead"
                f" of {before:.3f}",
            )


def losses_are_finite_scalars_with_a_gradient_to_every_mask(subject: Subject) -> None:
    """Each loss term is a finite float32 scalar, and the mask of every site gets a finite gradient from their sum."""
    _expect_gates(subject)
    scheme = _scheme(subject)
    for progress, dtype in ((0.0, torch.float32), (0.5, torch.bfloat16), (1.0, torch.float32)):
        trace = _trace(scheme, open_share=0.75, dtype=dtype)
        terms = scheme.losses(trace, BUDGET, progress)
        for name, term in terms.items():
            expect(
                isinstance(name, str) and term.dtype is torch.float32 and term.ndim == 0 and bool(term.isfinite()),
                f"expected the loss {name!r} of masks in {dtype} to be a finite float32 scalar, saw {term!r} at the"
                f" progress {progress}",
            )
        if not terms:
            continue
        expect(_sum(terms).requires_grad, f"expected losses with a gradient, saw none in {', '.join(terms)}")
        _sum(terms).backward()
        for site, mask in trace.masks.items():
            expect(
                mask.grad is not None and bool(mask.grad.isfinite().all()),
                f"expected a finite gradient of the losses towards the mask of {site}, saw {mask.grad}",
            )


def it_can_be_held_to_a_budget(subject: Subject) -> None:
    """With all masks open, above the budget, the losses push gates shut. A scheme without losses heeds the threshold."""
    _expect_gates(subject)
    scheme = _scheme(subject)
    for progress in (0.0, 0.5, 1.0):
        trace = _trace(scheme, open_share=1.0)
        terms = scheme.losses(trace, BUDGET, progress)
        if not terms:
            expect(_is_steered(subject), "expected losses, or gates that heed the threshold, to hold a budget; saw neither")
            continue
        if _sum(terms).requires_grad:
            _sum(terms).backward()
        slope = sum(float(mask.grad.sum()) for mask in trace.masks.values() if mask.grad is not None)
        expect(
            slope > 0,
            f"expected losses that rise with the open share when all is open and the budget is {BUDGET}, saw the slope"
            f" {slope:g} at the progress {progress}",
        )


def without_gates_there_is_no_loss(subject: Subject) -> None:
    """A scheme that gates nothing puts no gates into a network and has no loss."""
    scheme = _scheme(subject)
    if scheme.granularity is not None:
        raise DoesNotApplyError("it has gates")
    network = SmallBackbone(SharedNorms(SharedNormsOptions()).layer, scheme.make_gate)
    expect(all(point.gate is None for point in network.gate_points()), "expected no gates, saw some")
    terms = scheme.losses(Trace({}, network.cost_model(16)), 1.0, 0.5)
    expect(not terms, f"expected no loss of a scheme without gates, saw {sorted(terms)}")


def it_trains_in_a_network(subject: Subject) -> None:
    """In a network, every gate gives its mask, and every parameter of every gate gets a gradient from the features."""
    _expect_gates(subject)
    network = _network(subject)
    features, masks = network(random_images(ROWS, 16), Route.GATED)
    expect(len(masks) == len(_gated(network)), f"expected {len(_gated(network))} masks, saw those of {sorted(masks)}")
    (features * torch.randn(features.shape)).sum().backward()
    for name, p in network.named_parameters():
        if ".gate." in name:
            expect_gradient(name, p, " from the features")


def state_is_saved_whole(subject: Subject) -> None:
    """A new network with the state of a trained one gives exactly the same masks in evaluation mode."""
    _expect_gates(subject)
    network, again = _network(subject), _network(subject)
    images = random_images(ROWS, 16)
    for _ in range(2):
        network(images, Route.GATED)
    set_threshold(network, 0.125)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    again.load_state_dict(network.state_dict())
    expected, seen = (one.eval()(images, Route.GATED)[1] for one in (network, again))
    for site, mask in expected.items():
        expect(torch.equal(mask, seen[site]), f"expected the same mask at {site} from the saved state, saw another")


def compiles_whole_if_it_claims_to(subject: Subject) -> None:
    """If its options say `compiles = True`, torch.compile traces a gate as one graph, with the same evaluation masks."""
    claims_to_compile(subject)
    for gate, site in _gates(subject):
        x = _block_input(site)
        expected = _mask(gate.eval(), x)
        seen = compiled(gate.forward)(x, gate.thresholds[0])
        expect(torch.equal(expected, seen), "expected the same masks when compiled, saw others")
        mask = compiled(gate.train().forward)(x, gate.thresholds[0])
        if list(gate.parameters()):
            mask.sum().backward()


def _scheme(subject: Subject) -> GatingScheme:
    scheme: GatingScheme = subject.build()
    return scheme


def _gates_declared(subject: Subject) -> bool:
    model = subject.registered.options_model()
    return issubclass(model, GatingOptions) and model.gates


def _expect_gates(subject: Subject) -> None:
    if _scheme(subject).granularity is None:
        raise DoesNotApplyError("it gates nothing")


def _gates(subject: Subject) -> Iterator[tuple[Gate, GateSite]]:
    """Gates of two sites of different widths for each kind of site that the scheme acts on, and the sites as they act."""
    _expect_gates(subject)
    scheme = _scheme(subject)
    for kind in _kinds(scheme):
        for in_channels, channels in ((8, 12), (16, 6)):
            gate = scheme.gate(_site(kind, in_channels, channels))
            yield gate, gate.site


def _site(kind: Granularity, in_channels: int, channels: int) -> GateSite:
    """A site as a backbone declares it: with that many channels, or for a whole branch or all positions."""
    return GateSite("site", kind, in_channels, channels if kind is Granularity.CHANNEL else 1, ())


def _kinds(scheme: GatingScheme) -> tuple[Granularity, ...]:
    """The kinds of site that a scheme acts on."""
    return () if scheme.granularity is None else scheme.granularity.kinds


def _block_input(site: GateSite, count: int = ROWS, size: int = 5) -> Tensor:
    return torch.randn(count, site.in_channels, size, size, generator=torch.Generator().manual_seed(0))


def _mask(gate: Gate, x: Tensor) -> Tensor:
    """The mask of a gate by its own thresholds."""
    mask: Tensor = gate(x, gate.thresholds[0])
    return mask


def _expect_mask(mask: Tensor, site: GateSite, dtype: torch.dtype, training: bool) -> None:
    mode = "training" if training else "evaluation"
    expect(
        mask.shape == (ROWS, site.channels),
        f"expected masks of the shape ({ROWS}, {site.channels}) in {mode} mode, saw {tuple(mask.shape)}",
    )
    expect(mask.dtype is dtype, f"expected masks in the input's {dtype} in {mode} mode, saw {mask.dtype}")
    other = mask[(mask != 0) & (mask != 1)]
    expect(other.numel() == 0, f"expected masks of 0 and 1 only in {mode} mode, saw {other[:1].tolist()}")


@torch.no_grad()
def _open_shares(gate: Gate, site: GateSite) -> list[float]:
    """The open share of a gate's evaluation masks at each threshold."""
    shares = []
    for threshold in THRESHOLDS:
        set_threshold(gate, threshold)
        shares.append(float(_mask(gate.eval(), _block_input(site, 64)).mean()))
    return shares


def _is_steered(subject: Subject) -> bool:
    """Whether the threshold has an effect."""
    return any(len(set(_open_shares(gate, site))) > 1 for gate, site in _gates(subject))


def _network(subject: Subject) -> Backbone:
    return SmallBackbone(SharedNorms(SharedNormsOptions()).layer, _scheme(subject).make_gate)


def _gated(network: Backbone) -> list[str]:
    return [point.site.name for point in network.gate_points() if point.gate is not None]


def _trace(scheme: GatingScheme, open_share: float, dtype: torch.dtype = torch.float32) -> Trace:
    """The trace of a view whose masks are leaves of the graph, so that they show the gradient of the losses."""
    cost = SmallBackbone(SharedNorms(SharedNormsOptions()).layer, scheme.make_gate).cost_model(16)
    masks = {}
    for site, channels in cost.channels.items():
        mask = (torch.rand(ROWS, channels) < open_share).to(dtype)
        masks[site] = mask.requires_grad_()
    return Trace(masks, cost)


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


CHECKS = (
    is_a_gating_scheme,
    gates_are_declared,
    each_site_of_its_granularity_gets_a_gate,
    masks_are_0_or_1,
    masks_are_0_or_1_under_bf16,
    evaluation_masks_are_deterministic_and_without_gradient,
    training_masks_carry_a_gradient_to_every_parameter,
    declared_cost_is_the_counted_cost,
    a_pooled_rule_decides_as_the_gate_does,
    each_image_may_have_thresholds_of_its_own,
    the_threshold_has_an_effect,
    a_higher_threshold_shuts_more,
    losses_are_finite_scalars_with_a_gradient_to_every_mask,
    it_can_be_held_to_a_budget,
    without_gates_there_is_no_loss,
    it_trains_in_a_network,
    state_is_saved_whole,
    compiles_whole_if_it_claims_to,
)
