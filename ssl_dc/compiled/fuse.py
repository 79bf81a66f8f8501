"""Fuses the steps of a plan: norms, activations and sums join layers, and masks become work that is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

from ssl_dc.compiled.activations import RELU, Activation
from ssl_dc.compiled.heads import fuse_attention, order_heads, pick_heads
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.data_movement import Flatten, Subsample
from ssl_dc.compiled.steps.elementwise import Add, Multiply, Pointwise, Relu, Scale
from ssl_dc.compiled.steps.gates import Decide, Mask
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import Norm
from ssl_dc.compiled.steps.pooling import Mean
from ssl_dc.folding import folded
from ssl_dc.gating.sites import Granularity


def fuse(plan: Plan) -> Plan:
    """The same network in fewer steps that compute only what the masks keep."""
    folds = (_fold_subsample, _fold_flatten, _fold_norm, _fold_scale, _fold_activation)
    picks = (_pick_channels, pick_heads, order_heads, fuse_attention, _pick_region)
    for fused in (*folds, *picks, _run_branch_if_open, _fold_add, _fold_activation):
        for step in plan.steps:
            if step in plan.steps:  # an earlier exchange may have removed it
                plan = fused(plan, step)
    return plan


def _fold_subsample(plan: Plan, step: Step) -> Plan:
    """Fold the choice of pixels into 1x1 convolutions that follow, as their stride."""
    if not isinstance(step, Subsample) or step.output == plan.output:
        return plan
    readers = plan.readers(step.output)
    convolutions = [reader for reader in readers if isinstance(reader, Conv) and reader.input == step.output]
    pointwise = all(conv.weight.shape[2:] == (1, 1) and conv.padding == (0, 0) for conv in convolutions)
    if len(convolutions) < len(readers) or not pointwise:
        return plan
    strided: dict[Step, Sequence[Step]] = {
        conv: (replace(conv, input=step.input, stride=conv.stride * step.stride),) for conv in convolutions
    }
    return plan.exchanged({step: (), **strided})


def _fold_norm(plan: Plan, step: Step) -> Plan:
    """Fold a batch norm into the preceding convolution."""
    if not isinstance(step, Norm) or step.norm.running_var is None:
        return plan
    conv = _conv_before(plan, step.input)
    if conv is None:
        return plan
    weight, bias = folded(conv.weight, conv.bias, step.norm)
    return plan.exchanged({conv: (), step: (replace(conv, output=step.output, weight=weight, bias=bias),)})


def _fold_flatten(plan: Plan, step: Step) -> Plan:
    """Let a mean over the pixels that is flattened give (N, C) at once."""
    if not isinstance(step, Flatten) or not plan.read_once(step.input):
        return plan
    makers = plan.makers(step.input)
    if len(makers) != 1 or not isinstance(makers[0], Mean):
        return plan
    return plan.exchanged({makers[0]: (), step: (replace(makers[0], output=step.output, keepdim=False),)})


def _fold_scale(plan: Plan, step: Step) -> Plan:
    """Fold a constant for each channel into the preceding layer."""
    if not isinstance(step, Scale):
        return plan
    layer = _conv_before(plan, step.input) if step.axis == 1 else _linear_before(plan, step.input)
    if layer is None or layer.activation is not None or len(layer.weight) != len(step.factor):
        return plan
    weight = layer.weight * step.factor.view(-1, *[1] * (layer.weight.ndim - 1))
    scaled = replace(layer, output=step.output, weight=weight, bias=layer.bias * step.factor)
    return plan.exchanged({layer: (), step: (scaled,)})


def _fold_activation(plan: Plan, step: Step) -> Plan:
    """Fold an activation into the layer before it (and its sum); a ReLU after a gated branch into both alternatives."""
    if isinstance(step, Relu) and step.relu:
        activation = RELU
    elif isinstance(step, Pointwise) and isinstance(step.function, Activation):
        activation = step.function
    else:
        return plan
    makers = plan.makers(step.input)
    active = [_activated(maker, step.output, activation) for maker in makers]
    folded_in = [maker for maker in active if maker is not None]
    if not makers or not plan.read_once(step.input) or len(folded_in) < len(makers):
        return plan
    return plan.exchanged({**dict.fromkeys(makers, ()), step: folded_in})


def _activated(maker: Step, output: str, activation: Activation) -> Step | None:
    """A step with an activation as a part of it; None if it cannot have one."""
    if isinstance(maker, Relu) and not maker.relu and activation == RELU:
        return replace(maker, output=output, relu=True)
    if isinstance(maker, (Conv, Linear)) and maker.activation is None:
        return replace(maker, output=output, activation=activation)
    return None


def _pick_channels(plan: Plan, step: Step) -> Plan:
    """Turn a channel mask between layers into a choice of outputs of the first and of inputs of the next ones.

    What is between the first layer and the mask must treat each number by itself, or all channels alike. It then runs on
    the chosen channels only.
    """
    if not (isinstance(step, Mask) and step.site.granularity is Granularity.CHANNEL):
        return plan
    between = _pointwise_before(plan, step.input)
    value = between[0].input if between else step.input
    layer = _conv_before(plan, value, activated=True) if step.site.axis == 1 else _linear_before(plan, value)
    if layer is None or not _is_dense(layer) or layer.out_site is not None:
        return plan
    span, rest = divmod(len(layer.weight), step.site.channels)
    if rest:
        return plan
    readers = plan.readers(step.output)
    kind = type(layer)
    picked: dict[Step, Sequence[Step]] = {
        reader: (replace(reader, in_site=step.site.name, in_span=span),)
        for reader in readers
        if isinstance(reader, (Conv, Linear))
        and type(reader) is kind
        and _is_dense(reader)
        and reader.input == step.output
        and not reader.in_site
    }
    if len(picked) < len(readers) or step.output == plan.output:
        return plan
    chosen: list[Step] = [replace(layer, out_site=step.site.name, out_span=span), *between]
    moved = [*chosen[:-1], replace(chosen[-1], output=step.output)]  # after the decision
    return plan.exchanged({layer: (), **dict.fromkeys(between, ()), step: moved, **picked})


def _is_dense(step: Conv | Linear) -> bool:
    """Whether each output of a layer is made of all inputs."""
    return isinstance(step, Linear) or step.groups == 1


def _pick_region(plan: Plan, step: Step) -> Plan:
    """Turn a channel mask into a choice of channels in all steps around it that treat each channel by itself.

    These are depthwise and grouped convolutions before the mask, and squeeze-and-excitation after it: the mask then also
    chooses the inputs of the first layer of that, and the outputs of the second. An entry of the mask may stand for several
    neighbouring channels, if these are whole groups of each grouped convolution.
    """
    if not (isinstance(step, Mask) and step.site.granularity is Granularity.CHANNEL and step.site.axis == 1):
        return plan
    region = _Region(plan, step)
    if not region.complete:
        return plan
    return plan.exchanged({step: (), **region.picked})


class _Region:
    """The steps around a mask that can run on the channels that it opens.

    Args:
        plan: The plan.
        mask: The mask.

    Attributes:
        picked: What becomes of these steps.
        complete: Whether the mask is not needed any more.
    """

    def __init__(self, plan: Plan, mask: Mask) -> None:
        self.plan, self.site = plan, mask.site
        self.picked: dict[Step, Sequence[Step]] = {}
        self._decided = next(i for i, s in enumerate(plan.steps) if isinstance(s, Decide) and s.site == mask.site)
        self._renamed = {mask.input: mask.output}
        self.complete = (
            plan.read_once(mask.input)
            and self._pick_before(mask.input)
            and self._pick_after(mask.output)
            and all(plan.steps.index(step) > self._decided for step in self.picked)
        )

    def _pick_before(self, value: str) -> bool:
        """Pick channels in the steps that make a value of which only open channels are needed."""
        makers = self.plan.makers(value)
        if len(makers) != 1 or value == self.plan.output:
            return False
        maker = makers[0]
        name = self._renamed.get(value, value)
        if isinstance(maker, Conv):
            return self._pick_outputs(maker, name)
        if isinstance(maker, (Pointwise, Relu)):
            self.picked[maker] = (replace(maker, output=name),)
            return self.plan.read_once(maker.input) and self._pick_before(maker.input)
        return False

    def _pick_outputs(self, conv: Conv, name: str) -> bool:
        free = conv.residual is None and conv.out_site is None
        span, rest = divmod(len(conv.weight), self.site.channels)
        if not free or rest or (conv.groups > 1 and conv.groups % self.site.channels):
            return False
        picked = replace(conv, output=name, out_site=self.site.name, out_span=span)
        if conv.groups > 1:
            inputs = conv.groups * conv.weight.shape[1]
            picked = replace(picked, in_span=inputs // self.site.channels)
            before = dict(self.picked)
            if self.plan.read_once(conv.input) and self._pick_before(conv.input):
                picked = replace(picked, in_site=self.site.name)
            else:  # something else needs the whole input
                self.picked = before
        self.picked[conv] = (picked,)
        return True

    def _pick_after(self, value: str) -> bool:
        """Pick channels in the steps that read a value of which the shut channels are zeros."""
        if value == self.plan.output:
            return False
        return all(reader in self.picked or self._pick_reader(reader, value) for reader in self.plan.readers(value))

    def _pick_reader(self, reader: Step, value: str) -> bool:
        if isinstance(reader, Conv) and reader.groups == 1 and reader.residual != value and reader.in_site is None:
            span, rest = divmod(reader.weight.shape[1], self.site.channels)
            self.picked[reader] = (replace(reader, in_site=self.site.name, in_span=span),)
            return not rest
        if not (isinstance(reader, Multiply) or (isinstance(reader, Mean) and reader.keepdim)):
            return False
        self.picked[reader] = (reader,)
        others = [other for other in reader.inputs if other != value]
        made = all(self.plan.read_once(other) and self._pick_before(other) for other in others)
        return made and self._pick_after(reader.output)


def _pointwise_before(plan: Plan, value: str) -> list[Pointwise | Mask]:
    """The pointwise steps and masks of positions that end in a value, if only the next one reads each of them, in order."""
    makers = plan.makers(value)
    if len(makers) != 1 or not plan.read_once(value) or not _is_channelwise(makers[0]):
        return []
    return [*_pointwise_before(plan, makers[0].input), makers[0]]


def _is_channelwise(step: Step) -> TypeGuard[Pointwise | Mask]:
    """Whether a step is a function of each number by itself, or a mask that treats all channels alike."""
    return isinstance(step, Pointwise) or (isinstance(step, Mask) and step.site.granularity is Granularity.POSITION)


def _linear_before(plan: Plan, value: str) -> Linear | None:
    """The linear layer that computes a value, if only one step reads the value."""
    makers = plan.makers(value)
    return makers[0] if len(makers) == 1 and plan.read_once(value) and isinstance(makers[0], Linear) else None


def _run_branch_if_open(plan: Plan, step: Step) -> Plan:
    """Run a masked branch only where its mask is open; where it is shut, the sum is the other summand."""
    if not (isinstance(step, Mask) and step.site.granularity is Granularity.BRANCH and plan.read_once(step.output)):
        return plan
    (add,) = plan.readers(step.output)
    if not isinstance(add, Add):
        return plan
    other = add.right if add.left == step.output else add.left
    site = step.site.name
    opened = {each: (replace(each, when=site),) for each in _only_for(plan, step)}
    total = Add(output=add.output, left=step.input, right=other, when=site)
    rest = Relu(output=add.output, input=other, relu=False, unless=site)
    return plan.exchanged({**opened, step: (), add: (total, rest)})


def _only_for(plan: Plan, last: Step) -> set[Step]:
    """The steps whose values only ``last`` and these steps themselves read."""
    found: set[Step] = {last}
    for step in reversed(plan.steps):
        readers = plan.readers(step.output)
        unconditional = step.when is None and step.unless is None and not isinstance(step, Decide)
        if unconditional and readers and step.output != plan.output and all(reader in found for reader in readers):
            found.add(step)
    return found - {last}


def _fold_add(plan: Plan, step: Step) -> Plan:
    """Fold a sum into a preceding convolution, as its residual."""
    if not isinstance(step, Add):
        return plan
    for value, other in ((step.right, step.left), (step.left, step.right)):
        conv = _conv_before(plan, value)
        if conv is not None and value != other and conv.when == step.when and conv.out_site is None:
            return plan.exchanged({conv: (), step: (replace(conv, output=step.output, residual=other),)})
    return plan


def _conv_before(plan: Plan, value: str, activated: bool = False) -> Conv | None:
    """The convolution that computes a value, if only one step reads the value and nothing was folded into it yet.

    Args:
        plan: The plan.
        value: Name of the value.
        activated: Whether a folded activation is allowed.
    """
    makers = plan.makers(value)
    if len(makers) != 1 or not plan.read_once(value):
        return None
    conv = makers[0]
    bare = isinstance(conv, Conv) and conv.residual is None and (activated or conv.activation is None)
    return conv if bare and isinstance(conv, Conv) else None
