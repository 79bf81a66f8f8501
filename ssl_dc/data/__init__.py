"""Data sets; one file a kind of source; taking part of one, and loading batches of it."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_data() -> list[Part]:
    """The built-in data sets."""
    return [
        Part(
            name="digits",
            target="ssl_dc.data.digits:Digits",
            options="ssl_dc.data.options:DigitsOptions",
            summary="1,797 handwritten digits of 8x8 pixels, from scikit-learn; nothing to download.",
        ),
        Part(
            name="cifar10",
            target="ssl_dc.data.torchvision_sets:Cifar10",
            options="ssl_dc.data.options:Cifar10Options",
            summary="CIFAR-10: 60,000 images of 32x32 pixels in 10 classes, from torchvision.",
        ),
        Part(
            name="cifar100",
            target="ssl_dc.data.torchvision_sets:Cifar100",
            options="ssl_dc.data.options:Cifar100Options",
            summary="CIFAR-100: 60,000 images of 32x32 pixels in 100 classes, from torchvision.",
        ),
        Part(
            name="stl10",
            target="ssl_dc.data.torchvision_sets:Stl10",
            options="ssl_dc.data.options:Stl10Options",
            summary="STL-10: 100,000 unlabelled, 13,000 labelled images of 96x96 pixels, from torchvision.",
        ),
        Part(
            name="folder",
            target="ssl_dc.data.folder:Folder",
            options="ssl_dc.data.options:FolderOptions",
            summary="Your own pictures in any folders; with labels: train/CLASS/*.jpg and val/CLASS/*.jpg.",
        ),
        Part(
            name="parquet",
            target="ssl_dc.data.parquet:Parquet",
            options="ssl_dc.data.options:ParquetOptions",
            summary="Pictures in parquet files, with or without labels, as Hugging Face data sets keep them.",
        ),
        Part(
            name="arrow",
            target="ssl_dc.data.arrow:Arrow",
            options="ssl_dc.data.options:ArrowOptions",
            summary="Pictures saved by Hugging Face datasets: of any size, read from disk where they lie.",
        ),
        Part(
            name="webdataset",
            target="ssl_dc.data.webdataset:WebDataset",
            options="ssl_dc.data.options:WebDatasetOptions",
            summary="Pictures in tar files, as WebDataset keeps them: of any size, read from disk where they lie.",
        ),
    ]
