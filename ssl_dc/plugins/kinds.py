"""The kinds of part, a row each. Everything that differs between kinds and is not a part's own business stands here.

The hooks, the registry, the sections of a config, the options of the command line, ``ssl-dc plugins``, the conformance kit,
the templates of new packages and the reference pages all read these rows: a new kind of part is a new row.

Rows name classes by import string, so that the table imports no part.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of part.

    Attributes:
        name: What the kind is called in code, in configs and on the command line.
        label: What messages call a part of the kind.
        brings: What the hook brings, as a heading: a plural.
        hook: The hook that brings parts of the kind.
        contract: What a target is, and what it is called with: the documentation of the hook, in docstring markup.
        base: Import string of the class that every target is, builds or returns an instance of.
        options: Import string of the class that the options of every part derive from; None if parts have no options.
        section: What a config's section of this name chooses, in one sentence. None if a config has no such section: the
            part is then chosen when a run is used, or not chosen at all.
        default: The part that is used where nothing names one; None if none is.
        use: The command that uses a part, with ``NAME`` for its name.
        also: Import strings of the other public classes that the contract names.
    """

    name: str
    label: str
    brings: str
    hook: str
    contract: str
    base: str
    options: str | None = "ssl_dc.plugins.options:PartOptions"
    section: str | None = None
    default: str | None = None
    use: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="objective",
            label="objective",
            brings="Self-supervised objectives",
            hook="ssl_dc_objectives",
            contract="Each target is a :class:`ssl_dc.Objective`, built as ``Class(options, feature_dim)``.",
            base="ssl_dc.objectives.base:Objective",
            section="Self-supervised objective.",
            default="vicreg",
            use="ssl-dc train --objective NAME --budget 0.3",
        ),
        Kind(
            name="gating",
            label="gating scheme",
            brings="Gating schemes",
            hook="ssl_dc_gatings",
            contract="Each target is a :class:`ssl_dc.GatingScheme`, built as ``Class(options)``. Its gates give masks"
            " (N, channels) of 0 and 1 that follow their thresholds, or say ``heeds_threshold = False``.",
            base="ssl_dc.gating.base:GatingScheme",
            options="ssl_dc.plugins.options:GatingOptions",
            section="Gating scheme.",
            default="dgnet",
            use="ssl-dc train --gating NAME --budget 0.3",
        ),
        Kind(
            name="encoder",
            label="encoder",
            brings="Encoders: how the routes share weights",
            hook="ssl_dc_encoders",
            contract="Each target is a :class:`ssl_dc.Encoder`, built as ``Class(options, make_backbone, gating)``, where "
            "``make_backbone(gate_factory)`` builds one backbone.",
            base="ssl_dc.encoders.base:Encoder",
            section="How the routes share weights.",
            default="shared",
            use="ssl-dc train --encoder NAME --budget 0.3",
        ),
        Kind(
            name="backbone",
            label="backbone",
            brings="Network families",
            hook="ssl_dc_backbones",
            contract="Each target is a :class:`ssl_dc.Backbone`, built as ``Class(options, norm_factory, gate_factory)``.",
            base="ssl_dc.backbones.base:Backbone",
            section="Network.",
            default="resnet18",
            use="ssl-dc train --backbone NAME --budget 0.3",
        ),
        Kind(
            name="norm",
            label="norm policy",
            brings="Norm policies: which batch norms the routes share",
            hook="ssl_dc_norms",
            contract="Each target is a :class:`ssl_dc.NormPolicy`, built as ``Class(options)``.",
            base="ssl_dc.norms.base:NormPolicy",
            section="Which batch norms the routes share.",
            default="separate",
            use="ssl-dc train --norm NAME --budget 0.3",
        ),
        Kind(
            name="data",
            label="data set",
            brings="Data sets",
            hook="ssl_dc_data",
            contract="Each target is a :class:`ssl_dc.DataSet`, built as ``Class(options)``. The ``recipe`` of its options "
            "says how to train on it.",
            base="ssl_dc.data.base:DataSet",
            options="ssl_dc.plugins.options:DataOptions",
            section="Data set.",
            default="digits",
            use="ssl-dc train --data NAME --budget 0.3",
        ),
        Kind(
            name="views",
            label="views recipe",
            brings="Augmentation recipes",
            hook="ssl_dc_views",
            contract="Each target is a :class:`ssl_dc.Views`, built as ``Class(options, image_size, mean, std)``.",
            base="ssl_dc.views.base:Views",
            section="Augmentation.",
            default="standard",
            use="ssl-dc train --views NAME --budget 0.3",
        ),
        Kind(
            name="optimizer",
            label="optimiser",
            brings="Optimisers",
            hook="ssl_dc_optimizers",
            contract="Each target is a function ``build(options, groups, lr)`` that returns a "
            ":class:`torch.optim.Optimizer`. ``groups`` is a list of :class:`ssl_dc.ParameterGroup`; ``lr`` is "
            "the peak learning rate, already scaled to the batch.",
            base="torch.optim:Optimizer",
            options="ssl_dc.plugins.options:OptimizerOptions",
            section="Optimiser.",
            default="lars",
            use="ssl-dc train --optimizer NAME --budget 0.3",
            also=("ssl_dc.optimizers.base:ParameterGroup",),
        ),
        Kind(
            name="tracker",
            label="tracker",
            brings="Trackers: where metrics go besides the run's own file; a run has one",
            hook="ssl_dc_trackers",
            contract="Each target is a :class:`ssl_dc.Watcher`, built as ``Class(options, folder)`` before training "
            "begins, in the main process only. ``folder`` is the run's, a :class:`pathlib.Path`. If the tracker "
            "raises while it watches, the user is told once, and training goes on without it.",
            base="ssl_dc.trackers.base:Watcher",
            section="Where metrics go, besides metrics.jsonl.",
            default="none",
            use="ssl-dc train --tracker NAME --budget 0.3",
        ),
        Kind(
            name="protocol",
            label="evaluation protocol",
            brings="Evaluation protocols, for ``ssl-dc evaluate --protocol NAME`` and :func:`ssl_dc.evaluate`",
            hook="ssl_dc_protocols",
            contract="Each target is a function ``run(model, options)`` that returns a :class:`ssl_dc.Report` on a trained "
            ":class:`ssl_dc.Model`. Each of its options becomes an option of the command line.",
            base="ssl_dc.evaluation.report:Report",
            options="ssl_dc.plugins.options:ProtocolOptions",
            default="knn",
            use="ssl-dc evaluate runs/RUN --protocol NAME",
            also=("ssl_dc.model:Model",),
        ),
        Kind(
            name="command",
            label="command",
            brings="Commands of ``ssl-dc``",
            hook="ssl_dc_commands",
            contract="Each target is a :class:`click.Command`, called as ``ssl-dc NAME`` and imported only then. The "
            "record's summary is its line of help. A command of a plugin does not replace a built-in one of its "
            "name.",
            base="click:Command",
            options=None,
            use="ssl-dc NAME runs/RUN",
        ),
        Kind(
            name="watcher",
            label="watcher",
            brings="Training events: run start, each step, logged metrics, end of each epoch, each checkpoint, end",
            hook="ssl_dc_watchers",
            contract="Each target is a :class:`ssl_dc.Watcher`, built as ``Class(folder)`` for every training while the "
            "plugin is installed, in the main process only. ``folder`` is the run's, a :class:`pathlib.Path`. If "
            "the watcher raises, the user is told once, and training goes on without it.",
            base="ssl_dc.trackers.base:Watcher",
            options=None,
            use="ssl-dc train --budget 0.3",
        ),
    )
}
"""By name, in the order in which listings and pages show them."""


def config_sections() -> list[str]:
    """The kinds that a config has a section for, by name."""
    return [kind.name for kind in KINDS.values() if kind.section is not None]


def default_part(kind: str) -> str:
    """The part of a kind that is used where nothing names one.

    Raises:
        ValueError: If nothing is used then.
    """
    name = KINDS[kind].default
    if name is None:
        raise ValueError(f"no {KINDS[kind].label} is used unless it is named")
    return name
