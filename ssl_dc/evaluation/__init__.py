"""Evaluation of frozen encoders, each route by itself: protocols, what they measure with, and what they report."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_protocols() -> list[Part]:
    """The built-in evaluation protocols."""
    return [
        Part(
            name="knn",
            target="ssl_dc.evaluation.knn:knn",
            options="ssl_dc.evaluation.options:KNNOptions",
            summary="Nearest neighbours among the training features.",
        ),
        Part(
            name="linear",
            target="ssl_dc.evaluation.linear:linear",
            options="ssl_dc.evaluation.options:LinearOptions",
            summary="A linear classifier on frozen features.",
        ),
        Part(
            name="finetune",
            target="ssl_dc.evaluation.finetune:finetune",
            options="ssl_dc.evaluation.options:FinetuneOptions",
            summary="The whole network learns from labels.",
        ),
        Part(
            name="transfer",
            target="ssl_dc.evaluation.transfer:transfer",
            options="ssl_dc.evaluation.options:TransferOptions",
            summary="A linear classifier on another data set.",
        ),
        Part(
            name="umap",
            target="ssl_dc.evaluation.projection:umap",
            options="ssl_dc.evaluation.options:UMAPOptions",
            summary="A picture of the features by UMAP.",
        ),
        Part(
            name="tsne",
            target="ssl_dc.evaluation.projection:tsne",
            options="ssl_dc.evaluation.options:TSNEOptions",
            summary="A picture of the features by t-SNE.",
        ),
        Part(
            name="curve",
            target="ssl_dc.bench.curve:curve",
            options="ssl_dc.evaluation.options:CurveOptions",
            summary="Accuracy against cost over a range of budgets.",
        ),
        Part(
            name="gates",
            target="ssl_dc.evaluation.gate_statistics:gates",
            options="ssl_dc.evaluation.options:GatesOptions",
            summary="Which channels are used, by site and class.",
        ),
    ]
