"""The order of an epoch where images lie in blocks: shuffled by block and buffer, and every part of it to be had alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_dc.data.base import Blocks, ImageSet
from ssl_dc.data.subsets import Subset
from ssl_dc.data.unreadable import Readable
from ssl_dc.training.sampling import GlobalBatches, ShuffledBlocks

lengths = st.lists(st.integers(1, 20), min_size=1, max_size=12)


class Sharded(ImageSet):
    """Grey images, each as bright as its number says, in blocks of given lengths."""

    labels = None

    def __init__(self, sizes: list[int], together: int = 2) -> None:
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.n, self.together = sum(sizes), together

    def __len__(self) -> int:
        return self.n

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (4, 4), (index, index, index))

    def blocks(self) -> Blocks:
        return Blocks(self.starts, self.together)


@given(sizes=lengths, together=st.integers(1, 5), epoch=st.integers(0, 3))
def test_each_epoch_has_every_image_once(sizes: list[int], together: int, epoch: int) -> None:
    images = Sharded(sizes, together)
    order = ShuffledBlocks(len(images), images.blocks(), 3, epoch)[0 : len(images)]
    assert sorted(order.tolist()) == list(range(len(images)))


@given(sizes=lengths, together=st.integers(1, 5), cuts=st.tuples(st.integers(0, 240), st.integers(0, 240)))
def test_any_part_is_that_of_the_whole(sizes: list[int], together: int, cuts: tuple[int, int]) -> None:
    images = Sharded(sizes, together)
    first, last = sorted(min(cut, len(images)) for cut in cuts)
    if first == last:
        return
    whole = ShuffledBlocks(len(images), images.blocks(), 3, 1)[0 : len(images)]
    assert ShuffledBlocks(len(images), images.blocks(), 3, 1)[first:last].tolist() == whole[first:last].tolist()


def test_only_a_few_blocks_are_read_at_a_time_and_they_are_shuffled() -> None:
    images = Sharded([10] * 30, together=3)
    orders = [ShuffledBlocks(300, images.blocks(), seed, epoch)[0:300] for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        for buffer in order.reshape(10, 30):
            assert len(set((buffer // 10).tolist())) == 3
            assert sorted(buffer.tolist()) != buffer.tolist()
            assert len(set((buffer[:10] // 10).tolist())) > 1, "the blocks are shuffled into one another"
    assert len({tuple(order.tolist()) for order in orders}) == 3


@given(sizes=lengths, world=st.sampled_from([1, 2, 4]), start=st.integers(0, 5))
def test_processes_share_each_batch_and_a_resumed_run_goes_on_at_the_record(
    sizes: list[int], world: int, start: int
) -> None:
    images, batch = Sharded(sizes), 4
    if len(images) < batch:
        return
    whole = [key for batch in GlobalBatches(len(images), 4, 7, epoch=2, blocks=images.blocks()) for key in batch]
    start = min(start, len(images) // batch)
    parts = [
        list(
            GlobalBatches(
                len(images), batch, 7, epoch=2, world_size=world, rank=rank, start_step=start, blocks=images.blocks()
            )
        )
        for rank in range(world)
    ]
    shared = [key for step in zip(*parts, strict=True) for part in step for key in part]
    assert shared == whole[start * batch :]
    assert len(set(shared)) == len(shared)


@given(sizes=lengths, kept=st.sets(st.integers(0, 239), min_size=1))
def test_a_part_of_a_set_has_the_blocks_of_the_set(sizes: list[int], kept: set[int]) -> None:
    images = Sharded(sizes)
    chosen = np.array(sorted(number for number in kept if number < len(images)), np.int64)
    if not len(chosen):
        return
    blocks = Readable(Subset(images, chosen)).blocks()
    assert blocks is not None
    assert blocks.starts[0] == 0
    block_of = np.searchsorted(images.starts, chosen, side="right")
    assert blocks.starts.tolist() == np.flatnonzero(np.diff(block_of, prepend=-1)).tolist()


@pytest.mark.parametrize("chosen", [[3, 1, 2], [1, 1]])
def test_images_in_an_order_of_their_own_have_no_blocks(chosen: list[int]) -> None:
    assert Subset(Sharded([2, 2]), np.array(chosen)).blocks() is None
