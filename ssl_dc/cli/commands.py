"""The built-in commands. Each is imported when it is called."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part

SUMMARIES = {
    "bench": "Time a run's dense and gated routes, by every runtime there is.",
    "compare": "Put runs beside each other: accuracy, cost, settings that differ.",
    "config": "Show or check a complete config; print the schema of all configs.",
    "cost": "Show what a network costs, layer by layer, dense and gated.",
    "doctor": "Show what this machine offers, and what will be slow and why.",
    "embed": "Write a run's features of any data set to a file.",
    "evaluate": "Evaluate a run's features on held-out images.",
    "export": "Write a run's dense, gated or static network for other programs.",
    "grid": "Train the runs of many config files, here or through SLURM.",
    "plugins": "List, show and check the parts of runs; start a plugin of your own.",
    "push": "Push a run's model to the Hugging Face Hub, with a model card.",
    "report": "Show runs on one page for a browser.",
    "reproduce": "Reproduce a table or figure of the paper.",
    "train": "Pre-train an encoder that is dense and gated at once.",
}
"""Each command and its line of help. Kept here so that listing the commands imports none; a test holds both equal."""


@hookimpl
def ssl_dc_commands() -> list[Part]:
    """The built-in commands."""
    return [Part(name=name, target=f"ssl_dc.cli.{name}:command", summary=text) for name, text in SUMMARIES.items()]
