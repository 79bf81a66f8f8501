"""A run, pushed to the Hub: its config, its weights, its results and a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssl_dc.atomic_files import read_bytes
from ssl_dc.config import dump
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.hub.names import hub_errors, is_hub_name
from ssl_dc.model import Model
from ssl_dc.run_folder import RunFolder
from ssl_dc.tensor_files import write_tensors

CARD_FILE = "README.md"


@dataclass(frozen=True)
class Pushed(Report):
    """What was pushed.

    Attributes:
        name: The model on the Hub.
        url: Its page; the commit's, if there is one. None if nothing was pushed.
        files: Names of the files.
        card: The text of the model card.
    """

    name: str
    url: str | None
    files: tuple[str, ...]
    card: str

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"name": self.name, "url": self.url, "files": list(self.files), "card": self.card}

    def tables(self) -> Sequence[ReportTable]:
        """The files, and how the model is loaded."""
        note = (
            f'pushed: {self.url}\nload it with: ssl_dc.load("{self.name}")'
            if self.url
            else f"nothing was pushed; the card would be:\n\n{self.card}"
        )
        return [ReportTable(f"{self.name} on the Hub", ("file",), [(file,) for file in self.files], note=note)]


def push(
    run: str | Path,
    name: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,  # noqa: A002  # what the Hub calls it
    curve: str | Path | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Push the trained model of a run to the Hugging Face Hub, in one commit, with a model card.

    Pushed are ``config.json``, ``model.safetensors``, ``result.json`` if there is one, and ``README.md``. Paths of this
    machine are left out of the config: where the data is, and that of the looks, and which weights training started from.

    Args:
        run: The run's folder.
        name: The model on the Hub, ``owner/name``. It is made if it does not exist.
        private: Whether a model that is made is private; None for the owner's default.
        revision: The branch to push to; it is made if it does not exist. By default ``main``.
        message: The commit's message.
        license: Identifier of the model's licence, such as ``mit``.
        curve: A file with what ``ssl-dc evaluate RUN --protocol curve --json`` printed; by default ``curve.json`` in the
            run's folder, if it is there. The card shows it.
        dry_run: Whether to make the card only, and push nothing.

    Raises:
        ConfigError: If there is no run, the name is no name of a model, or this user may not push there.
        RunError: If the run's training has not ended, or the Hub cannot be reached.
    """
    if not is_hub_name(name):
        raise ConfigError(f"{name!r} is no name of a model on the Hub: write owner/name")
    folder = RunFolder.existing(Path(run))
    model = folder.load_model()
    measured = Path(curve) if curve is not None else folder.path / "curve.json"
    if curve is not None and not measured.is_file():
        raise ConfigError(f"--curve {measured}: there is no such file")
    from ssl_dc.hub.card import model_card

    card = str(model_card(folder, model, name, license=license, curve=measured if measured.is_file() else None))
    files = {"config.json": _shareable_config(model).encode(), CARD_FILE: card.encode()}
    if folder.result_file.is_file():
        files["result.json"] = read_bytes(folder.result_file)
    names = tuple(sorted([*files, "model.safetensors"]))
    if dry_run:
        return Pushed(name, None, names, card)
    return Pushed(name, _commit(model, name, files, private, revision, message or _message(folder)), names, card)


def _commit(
    model: Model, name: str, files: dict[str, bytes], private: bool | None, revision: str | None, message: str
) -> str:
    """Commit the files and the weights. Returns the address of the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="ssl-dc")
    with TemporaryDirectory() as temporary, hub_errors(name, revision):
        weights = Path(temporary) / "model.safetensors"
        write_tensors(weights, model.encoder.state_dict())
        sources: dict[str, bytes | str] = {**files, weights.name: str(weights)}
        api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(name).private:
            raise ConfigError(
                f"the Hub's {name} is public, so --private is refused: make it private on its page, or rename"
            )
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(file, source) for file, source in sources.items()]
        commit = api.create_commit(name, operations, commit_message=message, revision=revision)
        return str(commit.commit_url)


def _shareable_config(model: Model) -> str:
    """The run's config without paths of this machine."""
    config = model.config
    data = config.data.model_copy(update={"root": None})
    training = config.training.model_copy(update={"init": None, "watch_root": None})
    return dump(config.model_copy(update={"data": data, "training": training}))


def _message(folder: RunFolder) -> str:
    return f"Push the run {folder.path.resolve().name} with ssl-dc"
