"""Every extension point, on one page; docs/hooks.md is made from it.

A plugin is a module (or any object) whose functions carry :data:`ssl_dc.hookimpl` and have the names below; a package
offers it under the entry point group ``ssl_dc``. It says by ``SSL_DC_INTERFACE = "2.0"`` which version of the interface it
is written for.

Each hook is called once, without arguments, and returns a list of :class:`ssl_dc.Part` records, which name a class (or
function) and its options by import string: hooks should import nothing heavy. A hook may raise: its plugin is then left
out, with the reason in ``ssl-dc plugins list``, and everything else works.

What a record names is imported when a run chooses it, and called with the arguments given below. It may raise
:class:`ssl_dc.ConfigError` with one readable message where it cannot do what the options ask for.
"""

from __future__ import annotations

import pluggy

from ssl_dc.plugins.parts import Part

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

    Each target is a :class:`ssl_dc.GatingScheme`, built as ``Class(options)``; its options are
    :class:`ssl_dc.GatingOptions`.
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
    a list of :class:`ssl_dc.ParameterGroup`, ``lr`` the peak learning rate, already scaled to the batch. Its options are
    :class:`ssl_dc.OptimizerOptions`.
    """


@hookspec
def ssl_dc_trackers() -> list[Part]:  # type: ignore[empty-body]
    """Trackers: where metrics go besides the run's own file; a run has one.

    Each target is a :class:`ssl_dc.Watcher`, built as ``Class(options, folder)`` with the run's folder, a
    :class:`pathlib.Path`, before training begins and in the main process only. What it raises while it watches is told to
    the user once, and the tracker is left out from there on: training goes on.
    """


@hookspec
def ssl_dc_protocols() -> list[Part]:  # type: ignore[empty-body]
    """Evaluation protocols, for ``ssl-dc evaluate --protocol NAME`` and :func:`ssl_dc.evaluate`.

    Each target is a function ``run(model, options)`` that is given a trained :class:`ssl_dc.Model` and returns a
    :class:`ssl_dc.Report`. Its options are :class:`ssl_dc.ProtocolOptions`; each becomes an option of the command line.
    """


@hookspec
def ssl_dc_commands() -> list[Part]:  # type: ignore[empty-body]
    """Commands of ``ssl-dc``.

    Each target is a :class:`click.Command`, imported when it is called; the record's summary is its line of help, and
    ``options`` stays None. A built-in command is not replaced by another of its name.
    """


@hookspec
def ssl_dc_watchers() -> list[Part]:  # type: ignore[empty-body]
    """Training events: run start, each step, logged metrics, end of each epoch, each checkpoint, end.

    Each target is a :class:`ssl_dc.Watcher`, built as ``Class(folder)`` with the run's folder, a :class:`pathlib.Path`,
    for every training while the plugin is installed, in the main process only; ``options`` stays None. What it raises is
    told to the user once, and the watcher is left out from there on: training goes on.
    """
