"""The augmentation recipe of the paper (method section 1), on whole batches and on the device that trains.

A view has the distribution that :mod:`ssl_dc.views.standard` gives it. There each operation works on one PIL image and
rounds to whole pixel values. Here it works on a batch of floats and does not round.

On a CPU the compiled kernel (``kernel.c``) draws the views. On other devices, and where there is no kernel, the torch
operations of this file do. Both take the same random numbers, and their results agree up to the rounding of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_dc.data.pictures import LeastSize
from ssl_dc.devices import without_wait
from ssl_dc.views.base import BatchedViews
from ssl_dc.views.cropping import ASPECT_RATIO, CROP_ATTEMPTS, drawn_box, middle_box
from ssl_dc.views.kernel import CHANGES, DRAW, NO_CHANGE, REACH, Draws, kernel
from ssl_dc.views.options import BatchedStandardViewsOptions

if TYPE_CHECKING:
    from ssl_dc.plugins.options import Colour

BLUR_SIGMA = (0.1, 2.0)
SOLARIZE_THRESHOLD = 128
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's luma (ITU-R 601-2), as in Pillow."""

_CROP = slice(0, 4 * CROP_ATTEMPTS)
_ORDER = slice(_CROP.stop, _CROP.stop + 4)
_FACTORS = slice(_ORDER.stop, _ORDER.stop + 4)
_SIGMA = _FACTORS.stop
_JITTER, _GREY, _BLUR, _SOLARIZE, _FLIP = range(_SIGMA + 1, _SIGMA + 6)

Adjust = Callable[[Tensor, Tensor], Tensor]


class Decisions(NamedTuple):
    """What happens to the colours of each of N images, on the CPU.

    Attributes:
        jittered: Whether its colours are jittered, (N,) bool, like the next ones.
        grey: Whether it becomes grey.
        blurred: Whether it is blurred.
        solarized: Whether it is solarised.
        order: The order of its adjustments, by their number in the recipe, (N, adjustments) int64.
        amounts: How much each adjustment changes, by its number in the recipe, (N, adjustments) float32.
        sigma: Deviation of the blur, in pixels, (N,) float32.
    """

    jittered: Tensor
    grey: Tensor
    blurred: Tensor
    solarized: Tensor
    order: Tensor
    amounts: Tensor
    sigma: Tensor


class BatchedStandardViews(BatchedViews):
    """The views ``batched``: crop and flip, colour jitter, grey, blur, solarisation, normalise.

    S is the side of a view, in pixels. Inside, a batch is a tensor (N, S, 3, S) of float32 in [0, 255], by row, channel and
    column: both resampling products then read memory in its order.

    Args:
        options: Strengths and probabilities.
        image_size: Side of a global view, in pixels.
        mean: Of each channel, in [0, 1].
        std: Of each channel, above 0.
    """

    chances = _FLIP + 1

    def __init__(self, options: BatchedStandardViewsOptions, image_size: int, mean: Colour, std: Colour) -> None:
        self.options, self.image_size = options, image_size
        self.local_size, self.global_count = options.local_size, options.global_count
        # The smallest and flattest part then has as many pixels in its height as the view, and the narrowest in its width.
        crops = options.crops(image_size)
        areas = [crop.size**2 * ASPECT_RATIO[1] / crop.scale[0] for crop in crops]
        self.least_size = LeastSize(max(crop.size for crop in crops), max(areas))
        strengths: list[tuple[Adjust, tuple[float, float]]] = [
            (brightness, _around_one(options.brightness)),
            (contrast, _around_one(options.contrast)),
            (saturation, _around_one(options.saturation)),
            (hue, (-options.hue, options.hue)),
        ]
        kinds = [kind for kind, (_, ends) in enumerate(strengths) if ends[0] != ends[1]]
        self._kinds = np.array(kinds, np.int32)
        self.jitters = [strengths[kind] for kind in kinds]
        deviation = torch.tensor(std).view(3, 1)
        self._scale = 1 / (255 * deviation)
        self._shift = -torch.tensor(mean).view(3, 1) / deviation

    @property
    def fast_on_cpu(self) -> bool:
        """Whether there is a kernel."""
        return kernel() is not None

    def prepare(self) -> None:
        """Let the kernel be compiled, if it is not yet: once, and not in each process that crops."""
        kernel()

    def crop(self, image: Image.Image, number: int, chances: Tensor) -> Tensor:
        """A random part of an RGB image, resized: uint8 (3, S, S)."""
        size, scale = self.options.crop(number, self.image_size)
        attempts = chances[_CROP].view(CROP_ATTEMPTS, 4).tolist()
        top, left, height, width = drawn_box(attempts, *image.size, scale)
        flipped = bool(chances[_FLIP] < self.options.flip_p)
        # Cut first: resize's own box would let pixels from outside it into the filter.
        part = image.crop((left, top, left + width, top + height))
        native = kernel()
        if native is not None:
            draw = np.zeros(1, DRAW)
            draw["part"], draw["flip"] = (0, 0, height, width), flipped
            return torch.from_numpy(native.crop(np.asarray(part), draw, size)).permute(2, 0, 1)
        part = part.resize((size, size), Image.Resampling.BICUBIC)
        if flipped:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8)
        return pixels.view(size, size, 3).permute(2, 0, 1)

    def crop_batch(self, images: Tensor, number: int, chances: Tensor) -> Tensor:
        """A random part of each of images (N, 3, H, W) uint8, resized: float32 (N, 3, S, S) in [0, 255]."""
        size, scale = self.options.crop(number, self.image_size)
        height, width = images.shape[2:]
        box = without_wait(boxes(chances, width, height, scale), images.device)
        rows = resampling(box[:, 0], box[:, 2], height, size)
        columns = resampling(box[:, 1], box[:, 3], width, size)
        flipped = _rows(chances[:, _FLIP] < self.options.flip_p, images.device)
        columns[flipped] = columns[flipped].flip(1)
        by_row = images.permute(0, 2, 1, 3).contiguous().float()  # (N, H, 3, W)
        by_row = torch.bmm(rows, by_row.view(len(images), height, 3 * width))
        cropped = torch.bmm(by_row.view(len(images), 3 * size, width), columns.transpose(1, 2))
        return cropped.view(len(images), size, 3, size).permute(0, 2, 1, 3).clamp_(0, 255)

    def finish(self, crops: Tensor, number: int, chances: Tensor) -> Tensor:
        """Colours of view ``number`` changed, and normalised: float32 (N, 3, S, S), channels last.

        Args:
            crops: (N, 3, S, S) in [0, 255], uint8 or float32; may be overwritten. The kernel takes uint8 only.
            number: Number of the view, from 0.
            chances: (N, chances), on the CPU.
        """
        decided, device = self._decide(number, chances), crops.device
        native = kernel() if _is_in_bytes_on_cpu(crops) else None
        if native is not None:
            draws, size = self._draws(decided), crops.shape[2]
            draws["part"] = (0, 0, size, size)
            return native.views(crops, draws, size, self._scale, self._shift)
        x = crops.permute(0, 2, 1, 3).contiguous().float()  # (N, S, 3, S)
        self._jitter(x, decided)
        _change(x, decided.grey, luma)
        if decided.blurred.any():
            _change(x, decided.blurred, blur, without_wait(decided.sigma[decided.blurred], device))
        _change(x, decided.solarized, solarize)
        x.mul_(without_wait(self._scale, device)).add_(without_wait(self._shift, device))
        return x.permute(0, 2, 1, 3).contiguous(memory_format=torch.channels_last)

    def view_batch(self, images: Tensor, number: int, chances: Tensor) -> Tensor:
        """View ``number`` of images (N, 3, H, W) uint8: float32 (N, 3, S, S), channels last.

        The kernel crops and changes colours in one pass over each image.
        """
        native = kernel() if _is_in_bytes_on_cpu(images) else None
        if native is None:
            return super().view_batch(images, number, chances)
        size, scale = self.options.crop(number, self.image_size)
        height, width = images.shape[2:]
        draws = self._draws(self._decide(number, chances))
        draws["part"] = boxes(chances, width, height, scale).numpy()
        draws["flip"] = (chances[:, _FLIP] < self.options.flip_p).numpy()
        return native.views(images, draws, size, self._scale, self._shift)

    def _decide(self, number: int, chances: Tensor) -> Decisions:
        """What happens to the colours of each image in view ``number``."""
        options, which = self.options, min(number, 1)
        factors = chances[:, _FACTORS][:, : len(self.jitters)]
        amounts = [_between(ends, factors[:, place]) for place, (_, ends) in enumerate(self.jitters)]
        return Decisions(
            jittered=chances[:, _JITTER] < options.jitter_p,
            grey=chances[:, _GREY] < options.grayscale_p,
            blurred=chances[:, _BLUR] < options.blur_p[which],
            solarized=chances[:, _SOLARIZE] < options.solarize_p[which],
            order=chances[:, _ORDER][:, : len(self.jitters)].argsort(dim=1),
            amounts=torch.stack(amounts, dim=1) if amounts else factors,
            sigma=_between(BLUR_SIGMA, chances[:, _SIGMA]),
        )

    def _draws(self, decided: Decisions) -> Draws:
        """The decisions as the kernel takes them, without the part and the flip."""
        draws = np.zeros(len(decided.sigma), DRAW)
        draws["grey"], draws["blur"], draws["solarize"] = (
            chosen.numpy() for chosen in (decided.grey, decided.blurred, decided.solarized)
        )
        order = np.full((len(draws), CHANGES), NO_CHANGE, np.int32)
        order[:, : len(self._kinds)] = self._kinds[decided.order.numpy()]
        draws["order"] = np.where(decided.jittered.numpy()[:, None], order, NO_CHANGE)
        draws["amount"][:, self._kinds] = decided.amounts.numpy()
        if decided.blurred.any():
            distance = torch.arange(REACH + 1) / decided.sigma.view(-1, 1)
            draws["gaussian"] = torch.exp(-0.5 * distance.square()).numpy()
        return draws

    def _jitter(self, x: Tensor, decided: Decisions) -> None:
        """Each image's adjustments in an order of its own."""
        for place in range(len(self.jitters)):
            for which, (adjust, _) in enumerate(self.jitters):
                chosen = decided.jittered & (decided.order[:, place] == which)
                if chosen.any():
                    amount = decided.amounts[chosen, which].view(-1, 1, 1, 1)
                    _change(x, chosen, adjust, without_wait(amount, x.device))


def boxes(chances: Tensor, width: int, height: int, scale: tuple[float, float]) -> Tensor:
    """Random parts of images of one size: those of :func:`drawn_box`, for many images at once.

    Args:
        chances: (N, at least 40) in [0, 1).
        width: Of the images, in pixels.
        height: Of the images.
        scale: Least and largest share of the area.

    Returns:
        Top, left, height and width of each part, (N, 4) int64.
    """
    share, shape, down, right = chances[:, _CROP].double().view(-1, CROP_ATTEMPTS, 4).unbind(2)
    area = width * height * _between(scale, share)
    ratio = _between((math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])), shape).exp()
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    attempts = torch.stack([(down * (height - h + 1)).floor(), (right * (width - w + 1)).floor(), h, w], dim=2)
    first = fits.int().argmax(dim=1)
    chosen = attempts[torch.arange(len(chances)), first]
    chosen[~fits.any(dim=1)] = torch.tensor(middle_box(width, height), dtype=chosen.dtype)
    return chosen.long()


def resampling(start: Tensor, length: Tensor, before: int, after: int) -> Tensor:
    """Matrices that cut a part out of a line of pixels and resize it: bicubic (a = -0.5), antialiased, as Pillow's.

    Args:
        start: First pixel of each part, (N,).
        length: Number of pixels of each part, (N,), at least 1.
        before: Pixels of a whole line.
        after: Pixels of a resized part.

    Returns:
        (N, after, before) float32; each row sums to 1.
    """
    start, length = (each.float().view(-1, 1, 1) for each in (start, length))
    scale = length / after
    pixel = torch.arange(before, device=start.device, dtype=torch.float32)
    centre = start + (torch.arange(after, device=start.device, dtype=torch.float32).view(-1, 1) + 0.5) * scale
    distance = ((pixel + 0.5 - centre) / scale.clamp(min=1)).abs_()
    near = ((1.5 * distance - 2.5) * distance).mul_(distance).add_(1)
    far = (((distance - 5) * distance).add_(8).mul_(distance).sub_(4)).mul_(-0.5)
    weights = torch.where(distance < 1, near, far.mul_(distance < 2))
    weights *= (pixel >= start) & (pixel < start + length)
    return weights.div_(weights.sum(dim=2, keepdim=True))


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Images times a factor."""
    return x.mul_(factor).clamp_(0, 255)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Each image's distance from its mean luma times a factor."""
    mean = luma(x).mean(dim=(1, 3), keepdim=True)
    return torch.lerp(mean, x, factor, out=x).clamp_(0, 255)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Each pixel's distance from its luma times a factor."""
    return torch.lerp(luma(x), x, factor).clamp_(0, 255)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Colours turned on the colour circle by a share of it, in [-0.5, 0.5]; value and chroma stay."""
    red, green, blue = x.unbind(2)
    value, least = x.amax(dim=2), x.amin(dim=2)
    chroma = value - least
    from_red, from_green, from_blue = green - blue, blue - red, red - green
    sixth = torch.where(value == green, from_green, from_blue)
    sixth = torch.where(value == red, from_red, sixth).div_(chroma.clamp(min=1e-6))
    sixth += torch.where(value == green, 2.0, 4.0).masked_fill_(value == red, 0.0)
    turned = sixth.add_(6 * shift.squeeze(2)).unsqueeze(2)
    place = turned + without_wait(torch.tensor([5.0, 3.0, 1.0]), x.device).view(3, 1)
    place.sub_(place.div(6).floor_(), alpha=6)  # modulo 6; torch.remainder takes several times as long
    part = torch.minimum(place, 4 - place).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(2), chroma.unsqueeze(2), part, value=-1)


def luma(x: Tensor) -> Tensor:
    """Luma of each pixel of images (N, S, 3, S): (N, S, 1, S)."""
    red, green, blue = x.unbind(2)
    return (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).unsqueeze(2)


def solarize(x: Tensor) -> Tensor:
    """Pixel values from the threshold on, inverted."""
    return torch.where(x >= SOLARIZE_THRESHOLD, 255 - x, x)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Images (N, S, 3, S) convolved with a Gaussian of deviation ``sigma`` (N,), in pixels; edges are continued."""
    n, size = len(x), x.shape[1]
    reach = math.ceil(4 * BLUR_SIGMA[1])
    target = torch.arange(size, device=x.device, dtype=torch.float32).view(-1, 1)
    source = torch.arange(-reach, size + reach, device=x.device, dtype=torch.float32)
    wide = torch.exp(-0.5 * ((source - target) / sigma.view(-1, 1, 1)).square())
    weights = wide[:, :, reach:-reach].clone()
    weights[:, :, 0] += wide[:, :, :reach].sum(dim=2)
    weights[:, :, -1] += wide[:, :, -reach:].sum(dim=2)
    weights /= weights.sum(dim=2, keepdim=True)
    by_row = torch.bmm(weights, x.reshape(n, size, 3 * size)).view(n, 3 * size, size)
    return torch.bmm(by_row, weights.transpose(1, 2)).view(n, size, 3, size)


def _is_in_bytes_on_cpu(images: Tensor) -> bool:
    """Whether the kernel can take the images."""
    return images.dtype == torch.uint8 and images.device.type == "cpu"


def _change(x: Tensor, chosen: Tensor, change: Callable[..., Tensor], *amounts: Tensor) -> None:
    """Change the chosen images of a batch, in place; a change of one channel gives all three."""
    rows = _rows(chosen, x.device)
    if len(rows):
        x[rows] = change(x[rows], *amounts)


def _rows(chosen: Tensor, device: torch.device) -> Tensor:
    """Numbers of the chosen images, brought to a device; found on the CPU, so that no device is waited for."""
    return without_wait(chosen.nonzero().squeeze(1), device)


def _around_one(strength: float) -> tuple[float, float]:
    return max(0.0, 1 - strength), 1 + strength


def _between(ends: tuple[float, float], share: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * share
