"""Draw the curves of a run from its metrics: python plot_metrics.py METRICS.jsonl PICTURE.png."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main(metrics: Path, picture: Path) -> None:
    """Loss and its terms, cost ratio against budget, and the embedding's effective rank, by step."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    loss, cost, rank = figure.subplots(1, 3)
    for name in ["loss", *sorted(key for key in rows[0] if key.startswith("terms/"))]:
        loss.plot(steps, [row[name] for row in rows], label=name.removeprefix("terms/"))
    loss.set(title="loss and its weighted terms", xlabel="step", yscale="symlog", ylim=(0, None))
    loss.legend(fontsize="small")
    for name, label in [("cost_ratio", "training gates"), ("evaluated_cost_ratio", "evaluation mode")]:
        cost.plot(steps, [row.get(name) for row in rows], label=label)
    cost.set(title="share of the dense cost", xlabel="step", ylim=(0, 0.6))
    cost.legend(fontsize="small")
    rank.plot(steps, [row["effective_rank"] for row in rows])
    rank.set(title="effective rank of the embedding", xlabel="step", ylim=(0, None))
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
