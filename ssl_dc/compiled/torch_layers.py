"""Layers of torch as steps of a plan."""

from __future__ import annotations

from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from ssl_dc.compiled.activations import activation_of_module
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.data_movement import Flatten
from ssl_dc.compiled.steps.elementwise import Pointwise, Relu
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm, Norm
from ssl_dc.compiled.steps.pooling import MaxPool, Mean

_POINTWISE = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ReLU6)
"""What maps each number by itself."""


def step_of_layer(module: nn.Module, value: str, output: str, layer: str) -> Step | None:
    """The step that computes what a layer of torch does in evaluation mode; None if no step does.

    Args:
        module: The layer.
        value: Name of the value that it is called with.
        output: Name of the value that it computes.
        layer: Name of the layer in the backbone.
    """
    if is_plain_convolution(module):
        return _convolution(module, value, output, layer)
    if type(module) is nn.Linear:
        bias = torch.zeros(module.out_features) if module.bias is None else module.bias.detach()
        return Linear(output=output, input=value, layer=layer, weight=module.weight.detach(), bias=bias)
    if isinstance(module, nn.ReLU):
        return Relu(output=output, input=value)
    if isinstance(module, _POINTWISE):
        return Pointwise(output=output, input=value, function=activation_of_module(module) or module)
    if isinstance(module, nn.MaxPool2d) and _is_square(module):
        kernel, stride, padding = map(_side, (module.kernel_size, module.stride, module.padding))
        return MaxPool(output=output, input=value, kernel=kernel, stride=stride, padding=padding)
    if isinstance(module, nn.LayerNorm):
        return step_of_norm(module, value, output)
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return Mean(output=output, input=value, keepdim=True)
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return Flatten(output=output, input=value)
    return None


def step_of_norm(norm: nn.Module, value: str, output: str) -> Step:
    """A batch norm, a layer norm over channels, or any other norm, which torch computes.

    Args:
        norm: The norm.
        value: Name of the value that it normalises.
        output: Name of the value that it computes.
    """
    if isinstance(norm, nn.BatchNorm2d):
        return Norm(output=output, input=value, norm=norm)
    axis = _normalised_axis(norm) if isinstance(norm, nn.LayerNorm) else 0
    if not isinstance(norm, nn.LayerNorm) or not axis:
        return Call(output=output, function=norm, arguments=(value,))
    weight, bias = _affine(norm)
    return LayerNorm(output=output, input=value, weight=weight, bias=bias, eps=norm.eps, axis=axis)


def is_plain_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that a ``Conv`` step can be."""
    return (
        type(module) is nn.Conv2d
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride[0] == module.stride[1]
    )


def _convolution(module: nn.Conv2d, value: str, output: str, layer: str) -> Conv:
    bias = torch.zeros(module.out_channels) if module.bias is None else module.bias.detach()
    return Conv(
        output=output,
        input=value,
        layer=layer,
        weight=module.weight.detach(),
        bias=bias,
        stride=module.stride[0],
        padding=cast("tuple[int, int]", module.padding),
        groups=module.groups,
    )


def _normalised_axis(norm: nn.LayerNorm) -> int:
    """The axis of the channels that a layer norm normalises: 1 or -1; 0 if it does something else."""
    if len(norm.normalized_shape) != 1:
        return 0
    (channels,) = norm.normalized_shape
    weight, bias = _affine(norm)
    for axis, shape in ((-1, (1, 2, channels)), (1, (1, channels, 2, 1))):
        x = torch.arange(2 * channels, dtype=torch.float32).sin().view(shape)
        try:
            y = norm(x)
        except (RuntimeError, ValueError, IndexError):  # it takes no value of this shape
            continue
        plain = nn.functional.layer_norm(x.movedim(axis, -1), (channels,), weight, bias, norm.eps).movedim(-1, axis)
        if y.shape == x.shape and torch.allclose(y, plain, rtol=1e-4, atol=1e-5):
            return axis
    return 0


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer norm, (channels,) each."""
    shape = norm.normalized_shape
    weight = torch.ones(shape) if norm.weight is None else norm.weight.detach()
    return weight, torch.zeros(shape) if norm.bias is None else norm.bias.detach()


def _is_square(pool: nn.MaxPool2d) -> bool:
    simple = not pool.return_indices and not pool.ceil_mode and _side(pool.dilation) == 1
    return simple and all(_side(size) > -1 for size in (pool.kernel_size, pool.stride, pool.padding))


def _side(size: int | tuple[int, ...]) -> int:
    """The side of a square size; -1 if it is not square."""
    if isinstance(size, int):
        return size
    return size[0] if len(set(size)) == 1 else -1
