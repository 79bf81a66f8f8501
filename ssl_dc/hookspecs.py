"""Every extension point, on one page.

A plugin is a module (or any object) whose functions carry :data:`ssl_dc.hookimpl` and have the names below; a package
offers it under the entry point group ``ssl_dc``. Each hook returns a list of :class:`ssl_dc.Part` records, which name a
class and its options by import string: hooks themselves should import nothing heavy.

The classes that the records name are built by :mod:`ssl_dc.assemble`, with the arguments given below.
"""

from __future__ import annotations

import pluggy

from ssl_dc.parts import Part

PROJECT = "ssl_dc"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ssl_dc_objectives() -> list[Part]:  # type: ignore[empty-body]  # a specification has no body
    """Self-supervised objectives.

    Each target is a :class:`ssl_dc.Objective`, built as ``Class(options, feature_dim)``.
    """


@hookspec
def ssl_dc_gatings() -> list[Part]:  # type: ignore[empty-body]
    """Gating schemes.

    Each target is a :class:`ssl_dc.GatingScheme`, built as ``Class(options)``.
    """


@hookspec
def ssl_dc_encoders() -> list[Part]:  # type: ignore[empty-body]
    """Encoders: how the two routes share weights.

    Each target is a :class:`ssl_dc.Encoder`, built as ``Class(options, make_backbone, gating)``, where
    ``make_backbone(gate_factory)`` builds one backbone.
    """


@hookspec
def ssl_dc_backbones() -> list[Part]:  # type: ignore[empty-body]
    """Network families.

    Each target is a :class:`ssl_dc.Backbone`, built as ``Class(options, norm_factory, gate_factory)``.
    """


@hookspec
def ssl_dc_norms() -> list[Part]:  # type: ignore[empty-body]
    """Batch-norm policies.

    Each target is a :class:`ssl_dc.NormPolicy`, built as ``Class(options)``.
    """


@hookspec
def ssl_dc_data() -> list[Part]:  # type: ignore[empty-body]
    """Data sets.

    Each target is a :class:`ssl_dc.DataSet`, built as ``Class(options)``; its options are
    :class:`ssl_dc.DataOptions`, whose ``recipe`` says how to train on it.
    """


@hookspec
def ssl_dc_views() -> list[Part]:  # type: ignore[empty-body]
    """Augmentation recipes.

    Each target is a :class:`ssl_dc.Views`, built as ``Class(options, image_size, mean, std)``.
    """


@hookspec
def ssl_dc_optimizers() -> list[Part]:  # type: ignore[empty-body]
    """Optimisers.

    Each target is a function ``build(options, groups, lr)`` that returns a :class:`torch.optim.Optimizer`; ``groups`` is
    a list of :class:`ssl_dc.ParameterGroup`, ``lr`` the peak learning rate, already scaled to the batch.
    """
