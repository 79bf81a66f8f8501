"""Runs a plan step by step with torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.compiled.plan import Plan, last_reads
from ssl_dc.compiled.steps.attention import Attention, JoinHeads, Products, SplitHeads
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.data_movement import Choice, Flatten, Rearrange, Subsample
from ssl_dc.compiled.steps.elementwise import Add, Multiply, Pointwise, Relu, Scale
from ssl_dc.compiled.steps.gates import Decide, Mask
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm, Norm
from ssl_dc.compiled.steps.pooling import MaxPool, Mean
from ssl_dc.gating.sites import masked

Values = dict[str, Any]
"""The values of one image by name. A channel-gated value holds only its kept channels, in ascending order."""


class EagerRun:
    """Runs a batch through a plan. A gate sees all images at once; every other step computes one image at a time.

    A subclass may override :meth:`value`, to look at what is computed.

    Args:
        plan: The plan.

    Attributes:
        masks: For each site the mask (N, channels) that its gate gave.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.masks: dict[str, Tensor] = {}
        self._last_reads = last_reads(plan)
        self._values: list[Values] = []
        self._kept: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, feature_dim) of at least one image (N, 3, H, W)."""
        self._values = [{self.plan.input: image} for image in images.split(1)]
        self._kept = [{} for _ in images]
        for index, step in enumerate(self.plan.steps):
            if isinstance(step, Decide):
                self._decide(step)
            else:
                self._compute(step)
            self._forget(value for value in step.inputs if self._last_reads[value] == index)
        return torch.cat([values[self.plan.output] for values in self._values])

    def value(self, step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
        """The value of a step for one image; see :func:`compute`."""
        return compute(step, values, kept)

    def _decide(self, step: Decide) -> None:
        mask = decided(step, [values[step.input] for values in self._values])
        self.masks[step.site.name] = mask
        for kept, row in zip(self._kept, mask, strict=True):
            kept[step.site.name] = row.nonzero().flatten()

    def _compute(self, step: Step) -> None:
        for values, kept in zip(self._values, self._kept, strict=True):
            if _runs(step, kept):
                values[step.output] = self.value(step, values, kept)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            for values in self._values:
                values.pop(name, None)


def decided(step: Decide, inputs: Sequence[Tensor]) -> Tensor:
    """The mask (N, channels) that a gate gives for the inputs of N images, in one call of the gate.

    An input is (1, C, H, W), or with ``axis`` -1 (1, T, C) or (1, H, W, C).
    """
    x = inputs[0] if len(inputs) == 1 else torch.cat(list(inputs))
    if step.axis == -1:
        x = x.movedim(-1, 1)
        x = x.unsqueeze(-1) if x.ndim == 3 else x
    return cast(Tensor, step.gate(x, step.threshold))


def _runs(step: Step, kept: Mapping[str, Tensor]) -> bool:
    """Whether a step is computed for an image with these open entries."""
    if step.when is not None:
        return len(kept[step.when]) > 0
    return step.unless is None or len(kept[step.unless]) == 0


def compute(step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
    """The output of a step for one image.

    Args:
        step: Any step but a decision.
        values: The inputs of the step by name.
        kept: For each site that the step depends on, the indices of the open entries.
    """
    if isinstance(step, Conv):
        return _convolve(step, values, kept)
    if isinstance(step, Linear):
        y = F.linear(values[step.input], *weight_and_bias(step, kept))
        return y if step.activation is None else step.activation(y)
    if isinstance(step, Pointwise):
        return step.function(values[step.input])
    if isinstance(step, SplitHeads):
        return _split(step, values[step.input])
    if isinstance(step, Products):
        return step.products(*(values[name] for name in step.inputs))
    if isinstance(step, JoinHeads):
        return _joined(values[step.input])
    if isinstance(step, Attention):
        return _joined(step.products(*attended(step, values)))
    if isinstance(step, Choice):
        return values[step.input][:, step.channels]
    if isinstance(step, Norm):
        return step.norm(values[step.input])
    if isinstance(step, Relu):
        return torch.relu(values[step.input]) if step.relu else values[step.input]
    if isinstance(step, Add):
        return values[step.left] + values[step.right]
    if isinstance(step, Multiply):
        return values[step.left] * values[step.right]
    if isinstance(step, Scale):
        return values[step.input] * (step.factor if step.axis == -1 else step.factor[:, None, None])
    if isinstance(step, LayerNorm):
        x = values[step.input].movedim(step.axis, -1)
        return F.layer_norm(x, step.weight.shape, step.weight, step.bias, step.eps).movedim(-1, step.axis)
    if isinstance(step, MaxPool):
        return F.max_pool2d(values[step.input], step.kernel, step.stride, step.padding)
    if isinstance(step, Subsample):
        return values[step.input][:, :, :: step.stride, :: step.stride]
    if isinstance(step, Mean):
        return values[step.input].mean(dim=(2, 3), keepdim=step.keepdim)
    if isinstance(step, Rearrange):
        x = values[step.input]
        return x.movedim(-1, 1) if step.form == "first" else (x.flatten(2) if step.form == "tokens" else x).movedim(1, -1)
    if isinstance(step, Flatten):
        return values[step.input].flatten(1)
    if isinstance(step, Mask):
        mask = torch.zeros(1, step.site.channels)
        mask[:, kept[step.site.name]] = 1
        return masked(values[step.input], mask, step.site)
    if isinstance(step, Call):
        return step.function(*(values[argument] for argument in step.arguments))
    raise TypeError(f"a {type(step).__name__} cannot be computed")


def weight_and_bias(step: Conv | Linear, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, of what its sites keep."""
    weight, bias = step.weight, step.bias
    if step.out_site is not None:
        entries = kept[step.out_site]
        weight, bias = (picked(values, 0, entries, step.out_span) for values in (weight, bias))
    if step.in_site is not None and not (isinstance(step, Conv) and step.groups > 1):
        weight = picked(weight, 1, kept[step.in_site], step.in_span)
    return weight, bias


def picked(values: Tensor, axis: int, entries: Tensor, span: int) -> Tensor:
    """The channels that entries of a mask stand for: ``span`` neighbouring ones each.

    Args:
        values: A tensor with all channels.
        axis: The axis of the channels.
        entries: Indices of entries, (n,) int64, each at most once.
        span: Channels of an entry.

    Returns:
        A tensor with ``n * span`` channels; ``values`` itself if these are all.
    """
    shape = values.shape
    if len(entries) * span == shape[axis]:
        return values
    by_entry = values.reshape(*shape[:axis], shape[axis] // span, span, *shape[axis + 1 :])
    return by_entry.index_select(axis, entries).flatten(axis, axis + 1)  # many times faster than values[entries]


def groups_with(step: Conv, outputs: int) -> int:
    """The groups of a convolution with this many of its outputs; those that it keeps are whole groups."""
    return max(1, step.groups * outputs // len(step.weight))


def attended(step: Attention, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Queries, keys and values of attention, (N, heads, T, D) each."""
    return tuple(_split(part, values[part.input]) for part in step.parts)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _split(step: SplitHeads, x: Tensor) -> Tensor:
    by_head = x.view(*x.shape[:-1], x.shape[-1] // step.span, step.span)
    return by_head[..., step.first : step.first + step.size].transpose(1, 2)


def _convolve(step: Conv, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Tensor:
    x = values[step.input]
    weight, bias = weight_and_bias(step, kept)
    if 0 in weight.shape:  # without inputs or outputs only the bias is left
        _, _, height, width = step.shape(x.shape)
        y = bias[None, :, None, None].expand(1, len(bias), height, width)
    else:
        if step.groups > 1 and step.out_site is not None and step.in_site is None:
            x = picked(x, 1, kept[step.out_site], step.in_span)
        groups = groups_with(step, len(weight))
        y = F.conv2d(x, weight, bias, stride=step.stride, padding=step.padding, groups=groups)
    if step.residual is not None:
        y = y + values[step.residual]
    return y if step.activation is None else step.activation(y)
