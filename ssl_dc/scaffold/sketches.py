"""What is written of each kind of part: the name of what the templates hold, what it does, how it is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sketch:
    """What the templates of a kind hold.

    Attributes:
        summary: What the part does, one line.
        use: The command that uses it, with ``$name`` for the part's name.
        target: Name of the part in its module, with ``$class_name`` for that of a class.
    """

    summary: str
    use: str
    target: str = "$class_name"


SKETCHES = {
    "objective": Sketch(
        summary="Two views of an image are drawn together, and embeddings kept from collapsing.",
        use="ssl-dc train --objective $name --budget 0.3",
    ),
    "gating": Sketch(
        summary="A linear gate of each channel, drawn to the budget.",
        use="ssl-dc train --gating $name --budget 0.3",
    ),
    "encoder": Sketch(
        summary="One set of weights for both routes, and features of the same scale.",
        use="ssl-dc train --encoder $name --budget 0.3",
    ),
    "backbone": Sketch(
        summary="A small residual network of one block a stage.",
        use="ssl-dc train --backbone $name --budget 0.3",
    ),
    "norm": Sketch(
        summary="Each route has batch norms of its own, everywhere.",
        use="ssl-dc train --bn $name --budget 0.3",
    ),
    "data": Sketch(
        summary="Drawings of discs, squares and crosses.",
        use="ssl-dc train --data $name --budget 0.3",
    ),
    "views": Sketch(
        summary="Views that are crops, flipped or not.",
        use="ssl-dc train --set views=$name --budget 0.3",
    ),
    "optimizer": Sketch(
        summary="Stochastic gradient descent with momentum.",
        use="ssl-dc train --set optimizer=$name --budget 0.3",
        target="build",
    ),
    "tracker": Sketch(
        summary="Writes the metrics as a CSV file into the run's folder.",
        use="ssl-dc train --tracker $name --budget 0.3",
    ),
    "protocol": Sketch(
        summary="How near gated features are to dense ones.",
        use="ssl-dc evaluate runs/RUN --protocol $name",
        target="run",
    ),
    "command": Sketch(
        summary="Say what a run's network weighs and costs.",
        use="ssl-dc $name runs/RUN",
        target="command",
    ),
    "watcher": Sketch(
        summary="Writes how long each epoch took into the run's folder.",
        use="ssl-dc train --budget 0.3",
    ),
}
"""By kind; their files are in ``templates/KIND``, what all kinds share in ``templates/any``."""
