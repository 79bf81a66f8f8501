"""ConvNet-AIG layer gating (Veit and Belongie 2018; method section 5)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dc.folding import folded
from ssl_dc.gating.base import Gate, GatingScheme, PooledRule
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import ConvNetAIGOptions
from ssl_dc.gating.sites import GateSite, Granularity

_SKIP, _RUN = 0, 1
"""The two classes of a gate's logits."""
INITIAL_BIAS = (0.1, 2.0)
"""Initial bias of the last layer, for skip and run: about 85 % of the branches run at first."""


def gumbel_noise(logits: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape of ``logits``, in float32."""
    eps = torch.finfo(torch.float32).eps
    u = torch.rand(logits.shape, dtype=torch.float32, device=logits.device).clamp(eps, 1 - eps)
    return -torch.log(-torch.log(u))


class ConvNetAIGGate(Gate):
    """One gate: logits = W2 . ReLU(BN(W1 . GAP(x))) for skip and run; the branch runs where run wins.

    Args:
        site: The branch site that the gate acts on.
        options: Hidden width, noise.
    """

    def __init__(self, site: GateSite, options: ConvNetAIGOptions) -> None:
        super().__init__(site)
        self.noise = options.noise
        self.squeeze = nn.Conv2d(site.in_channels, options.hidden, kernel_size=1)
        self.norm = nn.BatchNorm2d(options.hidden)
        self.excite = nn.Conv2d(options.hidden, 2, kernel_size=1)
        nn.init.normal_(self.excite.weight, std=0.001)
        with torch.no_grad():
            self.excite.bias.copy_(torch.tensor(INITIAL_BIAS))  # type: ignore[union-attr]  # it was made with a bias

    @property
    def macs(self) -> int:
        """Cost of the two 1x1 convolutions on one pixel."""
        return self.squeeze.weight.numel() + self.excite.weight.numel()

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of skip and run in float32; the threshold is not yet subtracted."""
        context = x.mean(dim=(2, 3), keepdim=True)
        logits: Tensor = self.excite(torch.relu(self.norm(self.squeeze(context))))
        return logits.flatten(1).float()

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, 1): hard straight-through Gumbel-softmax at temperature 1 in training, argmax in evaluation."""
        logits = self.logits(x)
        logits = torch.stack([logits[:, _SKIP], logits[:, _RUN] - threshold[..., 0]], dim=1)
        if self.training and self.noise:
            logits = logits + self.noise * gumbel_noise(logits)
        hard = (logits[:, _RUN] >= logits[:, _SKIP]).to(x.dtype)
        if self.training:
            soft = F.softmax(logits, dim=1)[:, _RUN].to(x.dtype)
            hard = hard + (soft - soft.detach())
        return hard[:, None]

    def pooled_rule(self, threshold: Tensor) -> PooledRule:
        """The logit of run minus that of skip, with the batch norm folded, minus the threshold."""
        hidden_weight, hidden_bias = folded(self.squeeze.weight, self.squeeze.bias, self.norm)
        weight, bias = self.excite.weight.detach().flatten(1), cast(Tensor, self.excite.bias).detach()
        difference = (weight[_RUN] - weight[_SKIP])[None]
        return PooledRule(hidden_weight.flatten(1), hidden_bias, difference, bias[_RUN] - bias[_SKIP] - threshold)


class ConvNetAIG(GatingScheme):
    """The gating scheme ``convnet_aig``."""

    granularity = Granularity.BRANCH

    def __init__(self, options: ConvNetAIGOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> ConvNetAIGGate:
        """A gate for a branch site."""
        return ConvNetAIGGate(site, self.options)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """The target-rate loss with the budget as the target of every block, or the penalty on the whole cost."""
        if self.options.loss == "budget":
            return {"budget": self.options.penalty * (trace.ratio().mean() - budget).square()}
        rates = torch.stack(list(trace.densities().values()))
        return {"rate": self.options.penalty * (budget - rates).square().mean()}
