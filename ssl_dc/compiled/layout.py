"""Lays out the weights of a plan as the kernel reads them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.elementwise import Scale
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm
from ssl_dc.errors import RunError
from ssl_dc.gating.base import PooledRule

ROWS, COLUMNS, PACKED, MAXPOOL, MEAN, GATE, ACTIVATE, HOST = range(8)
DEPTHWISE, ADD, MULTIPLY, LAYER_NORM, ATTENTION, GROUPED, SMALL_GROUPS, NOTHING = range(8, 16)
"""The kinds of operation, as in ``enum kind`` in program.h."""
KEPT_BYTES = 2**20
"""Memory for the rules of one gate at the budgets of the latest calls: enough for 512 budgets of a gate of 512 channels."""


Weighted: TypeAlias = Conv | Linear | LayerNorm | Scale
"""The steps whose weights are laid out."""


def is_layer(step: Step) -> TypeGuard[Conv | Linear]:
    """Whether a step is a layer, whose weights are laid out."""
    return isinstance(step, (Conv, Linear))


def kind_of(step: Conv | Linear) -> int:
    """The kind of operation that computes a layer whose outputs are made of all inputs."""
    if step.out_site is None:
        return COLUMNS
    return ROWS if step.in_site is None else PACKED


def as_convolution(step: Conv | Linear) -> Conv:
    """A layer as a convolution: a linear layer is one of 1x1 pixels."""
    if isinstance(step, Conv):
        return step
    return Conv(
        output=step.output,
        input=step.input,
        layer=step.layer,
        weight=step.weight[:, :, None, None],
        bias=step.bias,
        stride=1,
        padding=(0, 0),
        activation=step.activation,
        in_site=step.in_site,
        out_site=step.out_site,
        in_span=step.in_span,
        out_span=step.out_span,
    )


@dataclass(frozen=True)
class Laid:
    """The weights of a step, as a kernel reads them.

    Attributes:
        weight: The weight, or the factor of a scale.
        bias: The bias, padded.
        scale: In int8 the scale of each output, padded; None in float32.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None


class RuleWeights:
    """The weights of a gate that has a pooled rule, as the kernel reads them, at one budget at a time.

    The kernel keeps the addresses of the tensors, so the values at another budget are copied into the same memory. Those of
    the latest budgets are kept, so that a budget that is asked for again costs only the copy. Of each budget only the
    tensors are kept that differ from those of the first one. In most rules that is the last bias alone.

    Args:
        step: The decision of the gate, its dial at the first budget.
        rule: The rule at this budget.
        kernel: Gives the width of a vector.

    Attributes:
        hidden: Number of hidden units.
        tensors: Weight (hidden, in), bias (hidden,), weight (channels, hidden), bias (channels,); rows are padded to whole
            vectors. They hold the values at the budget of the latest :meth:`turn`.
    """

    def __init__(self, step: Decide, rule: PooledRule, kernel: Kernel) -> None:
        self._step, self._kernel = step, kernel
        self.hidden = len(rule.hidden_bias)
        self._first = _laid_rule(rule, kernel)
        self.tensors = tuple(values.clone() for values in self._first)
        self._in_place = list(self._first)
        self._kept = OrderedDict({step.dial.budget: self._first})
        self._kept_bytes = 0

    def turn(self) -> None:
        """Put the values at the budget of the dial in place.

        Raises:
            RunError: If the gate has no pooled rule at this budget.
        """
        budget = self._step.dial.budget
        if budget not in self._kept:
            self._keep(budget, self._lay_out())
        self._kept.move_to_end(budget)
        for number, values in enumerate(self._kept[budget]):
            if self._in_place[number] is not values:
                self.tensors[number].copy_(values)
                self._in_place[number] = values

    def _lay_out(self) -> tuple[Tensor, ...]:
        """The values at the budget of the dial. A tensor that is as at the first budget is the same object."""
        rule = self._step.rule
        if rule is None:
            raise RunError(f"the gate at {self._step.site.name} has a pooled rule at one budget and none at another")
        laid = _laid_rule(rule, self._kernel)
        return tuple(first if torch.equal(first, new) else new for first, new in zip(self._first, laid, strict=True))

    def _keep(self, budget: float | None, values: tuple[Tensor, ...]) -> None:
        """Keep the values at a budget, and forget those that were not used for longest if there are too many."""
        self._kept[budget] = values
        self._kept_bytes += self._own_bytes(values)
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= self._own_bytes(oldest)

    def _own_bytes(self, values: tuple[Tensor, ...]) -> int:
        """Memory of the values that are not those of the first budget."""
        return sum(new.nbytes for first, new in zip(self._first, values, strict=True) if new is not first)


class Weights:
    """The weights of a plan, laid out as the kernel reads them.

    Args:
        plan: The plan. Its layers and the pooled rules of its gates are laid out.
        kernel: Gives the width of a vector and of a block.
    """

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._kernel = kernel
        self._of_steps: dict[str, Laid] = {}
        self._rules: dict[str, RuleWeights | None] = {}
        for step in plan.steps:
            if is_layer(step):
                self._of_steps[step.output] = self._laid(as_convolution(step))
            elif isinstance(step, LayerNorm):
                self._of_steps[step.output] = Laid(*(pad(each, 0, kernel.vector) for each in (step.weight, step.bias)))
            elif isinstance(step, Scale):
                self._of_steps[step.output] = Laid(pad(step.factor, 0, kernel.vector), torch.empty(0))
            elif isinstance(step, Decide):
                rule = step.rule
                self._rules[step.site.name] = None if rule is None else RuleWeights(step, rule, kernel)

    def of(self, step: Weighted) -> Laid:
        """The weights of a step, laid out."""
        return self._of_steps[step.output]

    def kind(self, step: Conv | Linear) -> int:
        """The kind of operation that computes a layer."""
        if isinstance(step, Conv) and step.is_depthwise:
            return DEPTHWISE
        if isinstance(step, Conv) and step.groups > 1:
            return SMALL_GROUPS if _are_small(step, self._kernel) else GROUPED
        return kind_of(step)

    def rule(self, step: Decide) -> RuleWeights | None:
        """The weights of a gate's pooled rule; None for a gate that has none."""
        return self._rules[step.site.name]

    def turn(self) -> None:
        """Put the rules of the gates at the budget of the plan's dial in place, in the same memory.

        Raises:
            RunError: If a gate has a pooled rule at one budget and none at another.
        """
        for rule in self._rules.values():
            if rule is not None:
                rule.turn()

    def plan_with(self, plan: Plan) -> Plan:
        """The plan with weights (out, in, h, w) again, after :func:`without_weights`."""
        return plan.exchanged({step: (self.step_with(step),) for step in plan.steps})

    def step_with(self, step: Step) -> Step:
        """A step of the plan with its weight (out, in, h, w) or (out, in) again; any other step as it is."""
        if not is_layer(step):
            return step
        weight = self._original(as_convolution(step))
        return replace(step, weight=weight if isinstance(step, Conv) else weight[:, :, 0, 0])

    def _laid(self, step: Conv) -> Laid:
        """The weights of a convolution of the plan, laid out anew."""
        if self.kind(step) == GROUPED:
            by_group = step.bias.view(step.groups, -1)
            return Laid(grouped(step.weight, step.groups, self._kernel), pad(by_group, 1, self._kernel.vector).contiguous())
        lay = {DEPTHWISE: depthwise, SMALL_GROUPS: small_groups, COLUMNS: columns}.get(self.kind(step), rows)
        return Laid(lay(step.weight, self._kernel), pad(step.bias, 0, self._kernel.vector))

    def _original(self, step: Conv) -> Tensor:
        """The weight (out, in, h, w) of a convolution, taken out of its layout."""
        laid = self._of_steps[step.output].weight
        outputs, inputs, height, width = step.weight.shape
        if self.kind(step) == DEPTHWISE:
            return laid.transpose(1, 2).flatten(0, 1)[:outputs].reshape(step.weight.shape)
        if self.kind(step) == SMALL_GROUPS:
            return laid.permute(0, 3, 2, 1).flatten(0, 1)[:outputs].reshape(step.weight.shape)
        if self.kind(step) == GROUPED:
            return laid[..., : outputs // step.groups].permute(0, 4, 1, 2, 3).reshape(step.weight.shape)
        if self.kind(step) != COLUMNS:
            return laid[..., :inputs].permute(0, 3, 1, 2).contiguous()
        sizes = torch.arange(padded(outputs, self._kernel.vector)).split(self._kernel.block)
        blocks = laid.split([inputs * height * width * len(size) for size in sizes])
        turned = torch.cat([block.view(inputs, height, width, -1) for block in blocks], dim=3)
        return turned[..., :outputs].permute(3, 0, 1, 2).contiguous()


def without_weights(plan: Plan) -> Plan:
    """The plan with the shapes of its weights only, for when the weights are laid out elsewhere."""
    layers: dict[Step, tuple[Step]] = {
        step: (replace(step, weight=step.weight.to("meta")),) for step in plan.steps if is_layer(step)
    }
    return plan.exchanged(layers)


def rows(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (out, in, h, w) as (out, h, w, in padded to whole vectors): the weights of an output lie together."""
    return pad(weight.permute(0, 2, 3, 1), 3, kernel.vector).contiguous()


def columns(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (out, in, h, w) as blocks of outputs, each (in, h, w, block): in each the weights of an input lie together."""
    turned = pad(weight.permute(1, 2, 3, 0), 3, kernel.vector)
    return torch.cat([block.flatten() for block in turned.split(kernel.block, dim=3)])


def depthwise(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (channels, 1, h, w) as (vectors of channels, taps, channels of a vector)."""
    return pad(weight.flatten(1), 0, kernel.vector).view(-1, kernel.vector, weight[0].numel()).transpose(1, 2).contiguous()


def grouped(weight: Tensor, groups: int, kernel: Kernel) -> Tensor:
    """Weight (out, inputs of a group, h, w) as (groups, inputs, h, w, outputs of a group padded to whole vectors)."""
    return pad(weight.unflatten(0, (groups, -1)).permute(0, 2, 3, 4, 1), 4, kernel.vector).contiguous()


def small_groups(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (channels, inputs, h, w) as (vectors of channels, taps, inputs of a group, channels of a vector)."""
    whole = pad(weight.flatten(2), 0, kernel.vector)
    return whole.view(-1, kernel.vector, *whole.shape[1:]).permute(0, 3, 2, 1).contiguous()


def _are_small(step: Conv, kernel: Kernel) -> bool:
    """Whether groups fit into the lanes of a vector, and the input holds the same groups as the output."""
    outputs, inputs = len(step.weight) // step.groups, step.weight.shape[1]
    fits = outputs == inputs and inputs in (2, 4, 8) and inputs < kernel.vector
    return fits and (step.out_site is None or step.in_site is not None)


def _laid_rule(rule: PooledRule, kernel: Kernel) -> tuple[Tensor, ...]:
    """The tensors of a rule, float32; rows are padded to whole vectors."""
    tensors = (
        pad(rule.hidden_weight, 1, kernel.vector),
        rule.hidden_bias,
        pad(rule.weight, 1, kernel.vector),
        rule.bias,
    )
    return tuple(tensor.detach().float().contiguous() for tensor in tensors)


def pad(tensor: Tensor, dim: int, multiple: int) -> Tensor:
    """The tensor with zeros added at the end of a dimension, up to a multiple of a number."""
    after = [0, padded(tensor.shape[dim], multiple) - tensor.shape[dim]]
    return nn.functional.pad(tensor, [0, 0] * (tensor.ndim - 1 - dim) + after)


def padded(size: int, multiple: int) -> int:
    """The smallest multiple that is at least ``size``."""
    return -(-size // multiple) * multiple
