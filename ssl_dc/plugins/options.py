"""Base option classes: the pydantic models that the options of each kind of part derive from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator

Colour = tuple[float, float, float]
"""One value a channel: red, green, blue."""

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.228, 0.224, 0.225)


LARGEST_NUMBER = 1e30
"""The largest number that an option of a part may be. Single precision ends at 3.4e38; some options are multiplied."""


def _path_of_user(path: Any) -> Any:
    """The absolute path that a user means. ``~`` is the user's home, as in a shell.

    A config that is kept must mean the same folder wherever it is read again.
    """
    if not isinstance(path, (str, Path)):
        return path
    if not str(path):
        raise ValueError("is empty; name a folder or file")
    if "\0" in str(path):
        raise ValueError("holds a NUL character, which no path may")
    named = Path(os.path.expanduser(path)).absolute()
    # With its ".." a path would depend on folders that hold nothing of it.
    return named.resolve() if ".." in named.parts else named


UserPath = Annotated[Path, BeforeValidator(_path_of_user)]
"""A path as users write it, kept as an absolute path."""


class Strict(BaseModel):
    """Base of every config model: unknown keys are errors, and values do not change once they are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class PartOptions(Strict):
    """Base of the options of every part.

    Attributes:
        name: The part's name, as registered; a subclass gives it as its default. Where two packages bring the same name,
            a config writes ``package:name``.
        recipe: Settings of other sections (dotted key to value) that come with the choice of this part. They rank above
            the defaults and below everything that a user says.
        compiles: Whether ``torch.compile`` takes the part as one graph, forward and backward. :mod:`ssl_dc.testing`
            checks the claim.
    """

    recipe: ClassVar[Mapping[str, Any]] = {}
    compiles: ClassVar[bool] = False

    name: str = Field(description="The part, by the name under which it is registered.")

    def in_words(self) -> str:
        """What messages and tables call the part. One that stands for many, as timm's backbone does, says which."""
        return self.name

    @field_validator("*")
    @classmethod
    def _within_single_precision(cls, value: Any) -> Any:
        """Refuse numbers that networks cannot compute with, such as a learning rate of 1e300."""
        if isinstance(value, float) and abs(value) > LARGEST_NUMBER:
            raise ValueError(f"is too large: networks compute in single precision; the limit is {LARGEST_NUMBER:g}")
        return value


class PublishedSet(NamedTuple):
    """A data set that is always the same.

    Attributes:
        train: Number of training images.
        labelled: Number of the labelled images that evaluation learns from.
        test: Number of images held out.
        side: Side of the stored images, in pixels.
    """

    train: int
    labelled: int
    test: int
    side: int


class GatingOptions(PartOptions):
    """Base of the options of every gating scheme.

    Attributes:
        gates: Whether the scheme has gates, hence a gated route and a use for a budget.
    """

    gates: ClassVar[bool] = True


def _divide(colour: Colour) -> str:
    """What to do with a colour that is given for values of 0 to 255."""
    return (
        f"; of values of 0 to 255, divide by 255: {[round(value / 255, 4) for value in colour]}" if max(colour) > 1 else ""
    )


class DataOptions(PartOptions):
    """Base of the options of every data set.

    Attributes:
        notice: What the user is told when a training uses the data set by default.
        fitted: Whether the recipe is fitted to the pictures that are found, and to the machine, unless the user asks for
            the fixed one.
        published: The number and the size of the images of a set that is always the same; None for other sets. A training
            can then be planned without the data.
    """

    notice: ClassVar[str] = ""
    fitted: ClassVar[bool] = False
    published: ClassVar[PublishedSet | None] = None

    _looked_in: tuple[Path, ...] = PrivateAttr(())
    """Where the data of a run was looked for, if it is in none of these places."""

    root: UserPath | None = Field(None, description="Folder that holds the data.")
    download: bool = Field(False, description="Download the data into the folder if it is not there.")
    limit: int | None = Field(
        None,
        ge=2,
        description="Use only this many training images, the same number of each class where labels are known.",
    )
    test_limit: int | None = Field(None, ge=1, description="Use only this many test images, chosen in the same way.")
    bad_images: Literal["stop", "skip"] | None = Field(
        None,
        description="An image that cannot be read: 'stop' ends the run and names it; 'skip' lets the next of its class"
        " stand in for it, counted and listed. Not set, it is 'stop' for images with labels, 'skip' for those without.",
    )
    shrink: int | None = Field(
        None,
        ge=8,
        description="Shrink training images once, until their shorter side has so many pixels, and keep them in memory:"
        " for photographs, which take long to decode. Not set, each is decoded whenever it is drawn.",
    )
    image_size: int = Field(224, ge=8, le=1024, description="Side of the square images that the network sees, in pixels.")
    mean: Colour = Field(IMAGENET_MEAN, description="Mean of the channels, in [0, 1].")
    std: Colour = Field(IMAGENET_STD, description="Standard deviation of the channels, above 0, at most 2.")

    @field_validator("mean")
    @classmethod
    def _of_shares(cls, mean: Colour) -> Colour:
        if min(mean) < 0 or max(mean) > 1:
            raise ValueError(f"each must be in [0, 1]{_divide(mean)}")
        return mean

    @field_validator("std")
    @classmethod
    def _above_zero(cls, std: Colour) -> Colour:
        if min(std) <= 0 or max(std) > 2:
            raise ValueError(f"each must be above 0 and at most 2{_divide(std)}")
        return std


def gone_from(options: DataOptions, places: Sequence[Path]) -> DataOptions:
    """The options for a run whose data is in none of these places. They are kept for messages, and not saved."""
    copied = options.model_copy()
    copied._looked_in = tuple(places)
    return copied


def root_given(options: DataOptions) -> str:
    """Where the data's folder was named, for the message that it is not there."""
    return "data.root of the run's config" if options._looked_in else "--data-root or data.root"


def where_else(options: DataOptions) -> str:
    """The end of the message that the data is not there: where else it was looked for, and what to do.

    It is empty unless it is the data of a run.
    """
    if not options._looked_in:
        return ""
    others = " and ".join(map(str, options._looked_in[1:]))
    also = f" As seen from the run's folder it would be {others}, which is not there either." if others else ""
    return f"{also} Add --data-root DIR if the data has moved."


class OptimizerOptions(PartOptions):
    """Base of the options of every optimiser."""

    lr: float = Field(gt=0, description="Peak learning rate.")
    lr_scaling: Literal["linear", "none"] = Field(
        "none", description="'linear' multiplies lr by training.batch_size / 256; 'none' takes it as it is."
    )


class ProtocolOptions(PartOptions):
    """Base of the options of every evaluation protocol; each of them is an option of ``ssl-dc evaluate`` too.

    Attributes:
        picture: Whether the protocol's report can be drawn: never, when ``--output`` asks for it, or always.
        opens_own_data: Whether the protocol opens the data set of the model's config. Otherwise ``--eval-data`` is refused.
    """

    picture: ClassVar[Literal["never", "asked", "always"]] = "never"
    opens_own_data: ClassVar[bool] = True
