"""Options of the parts in this package; most have none but their name."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, create_model, field_validator

from ssl_dc.plugins.options import DataOptions, GatingOptions, OptimizerOptions, PartOptions, ProtocolOptions
from strangers import FAULTY, SOUND, name_of


class Rated(OptimizerOptions):
    lr: float = Field(0.1, gt=0, description="Learning rate.")


class BreaksTheGraph(PartOptions):
    compiles: ClassVar[bool] = True

    name: str = "breaks_the_graph"


class ExtraAllowed(PartOptions):
    model_config = ConfigDict(extra="allow")

    name: str = "extra_allowed"


class Undescribed(PartOptions):
    name: str = "undescribed"
    temperature: float = 0.5


class WrongName(PartOptions):
    name: str = "another_name"


class RequiredOption(PartOptions):
    name: str = "required_option"
    temperature: float = Field(description="Temperature.")


class ChangesOnReading(PartOptions):
    name: str = "changes_on_reading"
    margin: float = Field(0.0, ge=0, description="Margin in percent.")

    @field_validator("margin")
    @classmethod
    def _as_share(cls, percent: float) -> float:
        return percent / 100


class LeftOutOfTheFile(PartOptions):
    name: str = "left_out_of_the_file"
    temperature: float = Field(0.5, description="Temperature.", exclude=True)


class SaysItHasNoGates(GatingOptions):
    gates: ClassVar[bool] = False

    name: str = "says_it_has_no_gates"


class Drawn(ProtocolOptions):
    picture: ClassVar[Literal["never", "asked", "always"]] = "asked"


BASES: dict[str, type[PartOptions]] = {
    "gating": GatingOptions,
    "data": DataOptions,
    "optimizer": Rated,
    "protocol": Drawn,
}


def __getattr__(class_name: str) -> Any:
    """The options of a part that has none of its own."""
    for kind in SOUND:
        if class_name in (*SOUND[kind], *FAULTY[kind]):
            model = create_model(class_name, __base__=BASES.get(kind, PartOptions), name=(str, name_of(class_name)))
            globals()[class_name] = model
            return model
    raise AttributeError(class_name)
