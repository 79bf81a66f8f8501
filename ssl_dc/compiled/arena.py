"""Lays out the values of a plan in memory for one image size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_dc.compiled.eager import compute
from ssl_dc.compiled.kernel_interface import Activation
from ssl_dc.compiled.layout import COLUMNS, kind_of, padded
from ssl_dc.compiled.placement import FIRST, Placement
from ssl_dc.compiled.plan import Plan, last_reads
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.errors import RunError

LINE = 64
"""Bytes of a cache line. Every activation begins at the start of one."""
CROWDED = 512
"""Pixels of floats, or of halves of floats, that would be a multiple of this many bytes apart get a line between them.
Else the same channel of neighbouring pixels lies in few sets of the first cache level, and they displace each other."""


def shapes_of(plan: Plan, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each value for one image with all channels kept.

    The shape is () for a value that is not a float32 tensor of one image with two to four axes.

    Raises:
        RunError: If a value has another shape where a branch is shut.
    """
    values: dict[str, Any] = {plan.input: torch.zeros(1, 3, *image_size)}
    shapes: dict[str, tuple[int, ...]] = {plan.input: tuple(values[plan.input].shape)}
    last = last_reads(plan)
    opened = {site.name: torch.arange(site.channels) for site in plan.sites}
    for index, step in enumerate(plan.steps):
        if isinstance(step, Decide):
            continue
        with torch.no_grad():
            value = (
                torch.zeros(step.shape(values[step.input].shape))
                if isinstance(step, Conv)
                else compute(step, values, opened)
            )
        values[step.output] = value
        fits = isinstance(value, Tensor) and value.dtype is torch.float32 and value.ndim in (2, 3, 4) and len(value) == 1
        shape = tuple(value.shape) if fits else ()
        if shapes.setdefault(step.output, shape) != shape:
            raise RunError(f"{step.output}: a gated branch is added to a value of another shape, which cannot be compiled")
        for name in step.inputs:
            if last[name] == index:
                values.pop(name, None)
    return shapes


@dataclass(frozen=True)
class Place:
    """The place of a value in the arena.

    Attributes:
        offset: Index of the first cell of its first pixel.
        shape: (channels, height, width).
        steps: How many cells lie from one channel, one row and one pixel to the next.
        fine: How many cells lie from a code to the byte with its 256ths; 0 if there is none.
    """

    offset: int
    shape: tuple[int, int, int]
    steps: tuple[int, int, int]
    fine: int


@dataclass(frozen=True)
class Cells:
    """What an arena consists of: cells, each of which holds an element of a map.

    Attributes:
        size: Bytes of a cell: 4 for a float, 2 for its upper half (bf16), 1 for a code.
        pixel: The channels of a pixel are padded to a multiple of this.
        image_pixel: The same for the images; None if these may stay planar, which is channel after channel.
        zeros: What stands for 0 in each value, where that is not 0.
        fine: The values whose codes have a second byte, with 256ths of a step.
    """

    size: int
    pixel: int
    image_pixel: int | None = None
    zeros: Mapping[str, int] = field(default_factory=dict)
    fine: frozenset[str] = frozenset()


class Arena:
    """Assigns a place to each value that the kernel makes or reads.

    Values of one shape reuse a place; the border of zeros around it is never written. Tokens (1, T, C) lie as an image of
    one column.

    Args:
        placement: The plan, with the shapes of its values.
        cells: The cells of the arena. A value (1, C) consists of floats, whatever the cells are.
    """

    def __init__(self, placement: Placement, cells: Cells) -> None:
        self._end = 0
        self._cells = cells
        self._placement, plan = placement, placement.plan
        self._input = plan.input
        self._borders: set[tuple[int, int, int]] = set()
        self._places: dict[str, Place] = {}
        self._flat = {value for value, shape in placement.shapes.items() if len(shape) == 2}
        placed = placement.in_arena()
        borders = {value: _border(plan, value) for value in placed}
        free: dict[tuple[int, ...], list[int]] = {}
        last = last_reads(plan)
        planar = cells.image_pixel is None and _is_planar(placement)
        self._put(plan.input, borders[plan.input], planar, free)
        for index, step in enumerate(plan.steps):
            if not isinstance(step, Decide) and step.output in placed and step.output not in self._places:
                self._put(step.output, borders[step.output], False, free)
            for value in set(step.inputs):
                if last[value] == index and value in self._places and value != plan.input:
                    free.setdefault(self._key(value, borders[value]), []).append(
                        self._start(self._places[value], borders[value])
                    )

    @property
    def cells_of_all(self) -> int:
        """How many cells there are, with a cache line that may be read past the end."""
        return self._end + LINE // self._cells.size

    def borders(self) -> set[tuple[int, int, int]]:
        """First cell, end and content of each place with a border in which something but 0 stands for 0."""
        return self._borders

    def holds(self, value: str) -> bool:
        """Whether a value lies in the arena; Python holds the others."""
        return value in self._places

    def place(self, value: str) -> Place:
        """The place of a value."""
        return self._places[value]

    def activation(self, value: str) -> Activation:
        """The place of a value in the form that the kernel reads."""
        place = self._places[value]
        (channels, height, width), (plane, line, stride) = place.shape, place.steps
        return Activation(place.offset, height, width, channels, stride, line, plane, place.fine)

    def view(self, value: str, arena: Tensor) -> Tensor:
        """A value as a view of the arena, in the shape that it has in the plan."""
        place = self._places[value]
        if value in self._flat:
            return arena[place.offset : place.offset + place.shape[0]][None]
        image = arena.as_strided((1, *place.shape), (0, *place.steps), place.offset)
        if self._placement.axes[value] == FIRST:
            return image
        return image.movedim(1, -1) if len(self._placement.shapes[value]) == 4 else image[..., 0].transpose(1, 2)

    def _image(self, value: str) -> tuple[int, int, int]:
        """Channels, height and width of a value in the arena."""
        sizes = self._placement.shapes[value][1:]
        channels, *sides = sizes if self._placement.axes[value] == FIRST else (sizes[-1], *sizes[:-1])
        height, width = (*sides, 1, 1)[:2]
        return channels, height, width

    def _put(self, value: str, border: int, planar: bool, free: dict[tuple[int, ...], list[int]]) -> None:
        """Give a value a place: one of the same shape that is free again, or a new one."""
        channels, height, width = self._image(value)
        steps = self._steps(value, border, planar)
        size = channels * steps[0] if planar else (height + 2 * border) * steps[1]
        size *= 4 // self._cells.size if value in self._flat else 1
        left = free.get(self._key(value, border))
        start = left.pop() if left and not planar else self._end
        line = LINE // self._cells.size
        whole = padded(size, line) + line
        fine = whole if value in self._cells.fine else 0
        if start == self._end:
            self._end += whole + fine
            if border and self._cells.zeros.get(value):
                self._borders.add((start, start + size, self._cells.zeros[value]))
        self._places[value] = Place(start + border * (steps[1] + steps[2]), (channels, height, width), steps, fine)

    def _steps(self, value: str, border: int, planar: bool) -> tuple[int, int, int]:
        """How many cells lie from one channel, one row and one pixel to the next."""
        channels, height, width = self._image(value)
        if planar:
            return (height + 2 * border) * (width + 2 * border), width + 2 * border, 1
        image_pixel = self._cells.image_pixel if value == self._input else None
        pixel = padded(channels, image_pixel or self._cells.pixel)
        if self._cells.size > 1 and height * width > 1 and pixel * self._cells.size % CROWDED == 0:
            pixel += LINE // self._cells.size
        return 1, (width + 2 * border) * pixel, pixel

    def _start(self, place: Place, border: int) -> int:
        return place.offset - border * (place.steps[1] + place.steps[2])

    def _key(self, value: str, border: int) -> tuple[int, ...]:
        """What two values must have in common to lie in one place after each other."""
        zero = self._cells.zeros.get(value, 0) if border else 0
        return (*self._image(value), border, zero, value in self._flat, value in self._cells.fine)


def _border(plan: Plan, value: str) -> int:
    """The widest padding of the convolutions that read a value."""
    return max((max(reader.padding) for reader in plan.readers(value) if isinstance(reader, Conv)), default=0)


def _is_planar(placement: Placement) -> bool:
    """Whether the images may stay channel after channel: all their readers must be able to read single elements."""
    readers = [step for step in placement.plan.readers(placement.plan.input) if step.output not in placement.constants]
    return all(
        placement.in_kernel(step) and isinstance(step, Conv) and step.groups == 1 and kind_of(step) == COLUMNS
        for step in readers
    )
