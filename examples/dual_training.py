"""Dual training of a dense and a gated network in one (Krishna et al. 2023), to read in one sitting.

The paper's whole method for CIFAR-10 in plain torch, on one device. This file does not use ssl_dc; a test holds both to the
same losses, gradients and weights. Run it as ``python examples/dual_training.py DIR``; DIR is the folder for CIFAR-10.
"""

import math
import sys

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision import transforms as T

BUDGET = 0.3  # t_d: the share of the dense network's multiply-accumulates that the gated route may pay
EPOCHS, WARMUP_EPOCHS, BATCH, PEAK_LR = 500, 10, 512, 0.6


def conv(c_in, c_out, kernel, stride=1, padding=0):
    layer = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def norm_per_route(channels):
    """Inside a block each route has a batch norm of its own; every other layer is shared."""
    return nn.ModuleDict({"dense": nn.BatchNorm2d(channels), "gated": nn.BatchNorm2d(channels)})


class Gate(nn.Module):
    """DGNet's gate: from the mean of each input channel, a mask of 0 and 1 over the hidden channels, for each image."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.squeeze, self.norm = nn.Conv2d(c_in, c_in // 4, 1, bias=False), nn.BatchNorm2d(c_in // 4)
        self.excite = nn.Conv2d(c_in // 4, c_out, 1, bias=False)

    def forward(self, x):
        logits = self.excite(torch.relu(self.norm(self.squeeze(x.mean((2, 3), keepdim=True))))).flatten(1)
        if not self.training:
            return (logits >= 0).to(x.dtype)
        u = torch.rand(logits.shape, device=x.device).clamp(2**-23, 1 - 2**-23)
        soft = torch.sigmoid((logits + u.log() - (1 - u).log()) * 3 / 2)  # logistic noise, temperature 2/3
        return (soft >= 0.5).to(x.dtype) + soft - soft.detach()  # the hard mask, with the gradient of the soft one


class Block(nn.Module):
    """A residual block; on the gated route its gate shuts channels between the two convolutions."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1, self.norm1 = conv(c_in, c_out, 3, stride, 1), norm_per_route(c_out)
        self.conv2, self.norm2 = conv(c_out, c_out, 3, 1, 1), norm_per_route(c_out)
        self.gate = Gate(c_in, c_out)
        changes = stride != 1 or c_in != c_out
        self.shortcut = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out)) if changes else nn.Sequential()

    def forward(self, x, route):
        """The output, each image's open share of the hidden channels, and the multiply-accumulates: dense, and paid."""
        hidden = torch.relu(self.norm1[route](self.conv1(x)))
        mask = self.gate(x) if route == "gated" else torch.ones_like(hidden[:, :, 0, 0])
        out = self.norm2[route](self.conv2(hidden * mask[:, :, None, None]))
        pixels = out.shape[2] * out.shape[3]
        gate = self.gate.squeeze.weight.numel() + self.gate.excite.weight.numel() if route == "gated" else 0
        shortcut = pixels * self.shortcut[0].weight.numel() if self.shortcut else 0
        # a shut channel saves its row of conv1 and its column of conv2
        both = pixels * (self.conv1.weight.numel() + self.conv2.weight.numel())
        paid = both * mask.mean(1) + shortcut + gate
        return torch.relu(out + self.shortcut(x)), mask.mean(1), both + shortcut, paid


class ResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem, whose padding is 2."""

    def __init__(self, width=64):
        super().__init__()
        self.conv1, self.norm1 = conv(3, width, 3, 1, 2), nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        for i, stride in enumerate([1, 1, 2, 1, 2, 1, 2, 1]):
            c_in, c_out = width * 2 ** (max(i - 1, 0) // 2), width * 2 ** (i // 2)
            self.blocks.append(Block(c_in, c_out, stride))

    def forward(self, images, route):
        """Features (N, 8 * width), each block's density (open share, mean over the batch), and each image's cost ratio."""
        x = torch.relu(self.norm1(self.conv1(images)))
        dense = paid = x.shape[2] * x.shape[3] * self.conv1.weight.numel()
        densities = []
        for block in self.blocks:
            x, open_share, dense_of_block, paid_in_block = block(x, route)
            dense, paid = dense + dense_of_block, paid + paid_in_block
            densities.append(open_share.mean())
        return x.mean((2, 3)), torch.stack(densities), paid / dense


def expander(features, width=2048):
    hidden = [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.BatchNorm1d(width)]
    return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(width, width))


def variance(z):
    return F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()


def covariance(z):
    c = torch.cov(z.T)
    return (c.square().sum() - c.diagonal().square().sum()) / len(c)


def losses(z1, z2, densities, ratio, progress):
    """The weighted terms: VICReg's three, the budget penalty, and DGNet's bound on densities, which relaxes as p falls."""
    p, target = math.exp(-10 * progress), math.sqrt(BUDGET)
    below, above = F.relu(p * target - densities), F.relu(densities - (1 - p + p * target))
    return {
        "invariance": 25 * F.mse_loss(z1, z2),
        "variance": 25 * (variance(z1) + variance(z2)),
        "covariance": covariance(z1) + covariance(z2),
        "budget": 5 * (ratio.mean() - BUDGET).square(),
        "bound": (below.square() + above.square()).mean(),
    }


class LARS(torch.optim.Optimizer):
    """Momentum SGD; the gradient of a weight of two or more dimensions is decayed, then scaled by min(q / lr, 1)."""

    def __init__(self, groups, lr, momentum=0.9, decay=1e-4, trust=0.02):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "decay": decay, "trust": trust})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                d = p.grad
                if p.ndim > 1 and group["lr"] > 0:
                    d = d + group["decay"] * p
                    q = group["trust"] * p.norm() / (p.grad.norm() + group["decay"] * p.norm() + 1e-8)
                    d = d * (q / group["lr"]).clamp(max=1)
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.sub_(group["lr"] * momentum.mul_(group["momentum"]).add_(d))


def optimizer_of(encoder, head):
    gates = [p for block in encoder.blocks for p in block.gate.parameters()]
    others = [p for p in [*encoder.parameters(), *head.parameters()] if all(p is not gate for gate in gates)]
    return LARS([{"params": others}, {"params": gates, "decay": 0.0}], lr=PEAK_LR)


def learning_rate(step, warmup_steps, total_steps):
    """Linear from a hundredth of the peak, then a cosine to 0."""
    if step < warmup_steps:
        return PEAK_LR * (0.01 + 0.99 * step / warmup_steps)
    return PEAK_LR * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))) / 2


def dual_step(encoder, head, optimizer, views, step, warmup_steps, total_steps):
    """One step of dual training: view 1 takes the gated route, view 2 the dense one, through the same weights."""
    features1, densities, ratio = encoder(views[0], "gated")
    features2, _, _ = encoder(views[1], "dense")
    terms = losses(head(features1), head(features2), densities, ratio, step / total_steps)
    optimizer.zero_grad()
    sum(terms.values()).backward()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, warmup_steps, total_steps)
    optimizer.step()
    return terms


def augmentation(blur):
    crop = T.RandomResizedCrop(32, (0.2, 1), interpolation=T.InterpolationMode.BICUBIC)
    colours = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8), T.RandomGrayscale(0.2)]
    soften = T.RandomApply([T.GaussianBlur(5, (0.1, 2))], blur)
    normalise = [T.ToTensor(), T.Normalize((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261))]
    return T.Compose([crop, *colours, soften, T.RandomSolarize(128, 0.1), T.RandomHorizontalFlip(), *normalise])


def main(folder):
    first, second = augmentation(blur=0), augmentation(blur=0.2)
    images = torchvision.datasets.CIFAR10(folder, download=True, transform=lambda image: (first(image), second(image)))
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, drop_last=True, num_workers=2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder, head = ResNet18().to(device), expander(512).to(device)
    optimizer = optimizer_of(encoder, head)
    warmup_steps, total_steps = WARMUP_EPOCHS * len(loader), EPOCHS * len(loader)
    for epoch in range(EPOCHS):
        for number, (views, _) in enumerate(loader, start=epoch * len(loader)):
            views = [view.to(device) for view in views]
            terms = dual_step(encoder, head, optimizer, views, number, warmup_steps, total_steps)
        print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {term.item():.3f}" for name, term in terms.items()), flush=True)
    torch.save(encoder.state_dict(), "encoder.pt")


if __name__ == "__main__":
    main(sys.argv[1])
