"""MACs of ResNets counted by hand, in whole numbers, from nothing but the shapes that the method gives."""

from __future__ import annotations

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
STEMS = {"imagenet": (7, 2, 3, True), "cifar": (3, 1, 2, False), "strided": (3, 2, 1, False)}
"""Kernel, stride and padding of the first convolution, and whether a 3x3 stride-2 max-pool follows."""


def blocks_by_hand(
    name: str, width: int, image: int, stem: str, padding: int | None = None
) -> tuple[int, list[dict[str, int]]]:
    """MACs of the stem, and of each block's convolutions; with its input and hidden widths (``c_in``, ``planes``)."""
    kernel, stride, usual_padding, pool = STEMS[stem]
    h = (image + 2 * (usual_padding if padding is None else padding) - kernel) // stride + 1
    first = kernel * kernel * 3 * width * h * h
    if pool:
        h = (h + 2 - 3) // 2 + 1
    blocks = []
    c_in = width
    for stage, depth in enumerate(DEPTHS[name]):
        planes = width * 2**stage
        for index in range(depth):
            wide = h * h
            if stage > 0 and index == 0:
                h = (h + 1) // 2
            small = h * h
            block = {"c_in": c_in, "planes": planes}
            if name == "resnet50":
                c_out = 4 * planes
                block.update(
                    conv1=wide * c_in * planes,  # the stride is conv2's
                    conv2=9 * small * planes * planes,
                    conv3=small * planes * c_out,
                )
            else:
                c_out = planes
                block.update(conv1=9 * small * c_in * planes, conv2=9 * small * planes * planes)
            block["shortcut"] = small * c_in * c_out if c_in != c_out or wide != small else 0
            blocks.append(block)
            c_in = c_out
    return first, blocks


def dense_by_hand(name: str, width: int, image: int, stem: str, padding: int | None = None) -> int:
    """MACs of the dense network for one image."""
    first, blocks = blocks_by_hand(name, width, image, stem, padding)
    layers = ("conv1", "conv2", "conv3", "shortcut")
    return first + sum(block[layer] for block in blocks for layer in layers if layer in block)


def channel_gated_by_hand(width: int, image: int, stem: str, opened: list[int]) -> int:
    """MACs of ResNet-18 with DGNet's gates for one image, given the open channels of each block."""
    total, blocks = blocks_by_hand("resnet18", width, image, stem)
    for block, s in zip(blocks, opened, strict=True):
        c_in, planes = block["c_in"], block["planes"]
        total += (block["conv1"] + block["conv2"]) // planes * s + block["shortcut"]
        total += c_in * (c_in // 4) + (c_in // 4) * planes
    return total


def branch_gated_by_hand(name: str, width: int, image: int, stem: str, opened: list[int]) -> int:
    """MACs of a ResNet with ConvNet-AIG's gates for one image, given which branches run (1) and which do not (0)."""
    total, blocks = blocks_by_hand(name, width, image, stem)
    for block, runs in zip(blocks, opened, strict=True):
        branch = sum(block[layer] for layer in ("conv1", "conv2", "conv3") if layer in block)
        total += runs * branch + block["shortcut"] + block["c_in"] * 16 + 16 * 2
    return total
