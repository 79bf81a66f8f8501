"""Batch norms that see the global batch where several processes train, on GPUs and on CPUs."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_dc.distributed import of_all_processes, world_size


class _NormalisedByGlobalBatch(torch.autograd.Function):
    """Normalise x (N, C, H, W) by the mean and variance of the global batch. Each process has as many images.

    The gradient is that of one process with the whole batch, as with :func:`ssl_dc.distributed.gather_batch`: DDP averages
    the gradients of the parameters.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        means, variances = of_all_processes(_moments(x)).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.has_bias = eps, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        normalised, _, _ = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)
        return normalised, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, variance = ctx.saved_tensors
        scale = torch.rsqrt(variance + ctx.eps)
        factor = torch.ones_like(scale) if weight is None else _wide(weight)
        # With fixed statistics torch's own kernel gives the gradients of weight and bias, and that of x but for the part
        # that comes through the statistics.
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, factor, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = of_all_processes(torch.stack([of_bias, of_weight])).sum(0)
        of_all, along_x = sums * (factor * scale / (dist.get_world_size() * x.numel() / x.shape[1]))
        slope = along_x * scale
        shift = of_all - slope * mean
        if direct.dtype is x.dtype is slope.dtype:  # without memory for a tensor like x
            direct.addcmul_(x, _by_channel(slope), value=-1).sub_(_by_channel(shift))
        else:
            direct.sub_(torch.addcmul(_by_channel(shift), _wide(x), _by_channel(slope)))
        return direct, None if weight is None else of_weight, of_bias if ctx.has_bias else None, None


def _moments(x: Tensor) -> Tensor:
    """Mean and biased variance (2, C) of x (N, C, H, W), in float32 at least.

    Torch's kernel for batch norms takes them 15 to 20 times as fast on a CPU as ``torch.var_mean``.
    """
    unused = _wide(x.new_zeros(2, x.shape[1]))  # running statistics, whose dtype is that of the result
    return torch.stack(torch.batch_norm_update_stats(x, unused[0], unused[1], 0.0))


def _wide(values: Tensor) -> Tensor:
    """The values in float32 at least."""
    return values if values.dtype is torch.float64 else values.float()


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of the global batch, on the CPU.

    ``torch.nn.SyncBatchNorm`` refuses CPU tensors. In one process, and in evaluation mode, this is
    :class:`torch.nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W) by the statistics of the global batch or, in evaluation mode, by the running ones."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        normalised, mean, variance = cast(
            tuple[Tensor, Tensor, Tensor], _NormalisedByGlobalBatch.apply(x, self.weight, self.bias, self.eps)
        )
        self._follow(mean, variance, world_size() * x.numel() // x.shape[1])
        return normalised

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as torch does: by the unbiased variance of ``count`` values."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


def with_global_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, whose batch norms see the global batch in training. It keeps its parameters and buffers.

    Args:
        module: It is changed in place, unless it is a batch norm itself.
        device: Where it will train. On a GPU the norms become :class:`torch.nn.SyncBatchNorm`. Elsewhere each plain
            :class:`torch.nn.BatchNorm2d` becomes a :class:`GlobalBatchNorm2d`.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    if type(module) is nn.BatchNorm2d:
        return _global_norm(module)
    for name, child in module.named_children():
        module.add_module(name, with_global_norms(child, device))
    return module


def _global_norm(norm: nn.BatchNorm2d) -> GlobalBatchNorm2d:
    made = GlobalBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)
