"""Options of the objectives; imports no torch. The defaults are the papers'."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

import ssl_dc


class SimSiamOptions(ssl_dc.PartOptions):
    """Options of the objective ``simsiam``."""

    name: str = "simsiam"
    width: int = Field(2048, ge=2, description="Width of the projector's layers and of the prediction.")
    hidden_width: int = Field(512, ge=2, description="Width of the predictor's hidden layer.")


class SIGRegOptions(ssl_dc.PartOptions):
    """Options of the objective ``sigreg``."""

    name: str = "sigreg"
    width: int = Field(128, ge=2, description="Width of the embedding.")
    hidden_width: int = Field(2048, ge=2, description="Width of the projector's two hidden layers.")
    regularization: float = Field(
        0.05, ge=0, le=1, description="Weight lambda of the Gaussian regularisation. The prediction has 1 - lambda."
    )
    slices: int = Field(1024, ge=1, description="Number of random directions, drawn anew for each batch.")
    points: int = Field(17, ge=3, le=1025, description="Points of the quadrature over [-reach, reach]. An odd number.")
    reach: float = Field(5.0, gt=0, description="Largest t at which the characteristic functions are compared.")

    @field_validator("points")
    @classmethod
    def _odd(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError("must be odd, so that 0 is one of the points")
        return points


class VISRegOptions(ssl_dc.PartOptions):
    """Options of the objective ``visreg``."""

    name: str = "visreg"
    width: int = Field(256, ge=2, description="Width of the embedding.")
    hidden_width: int = Field(2048, ge=2, description="Width of the projector's two hidden layers.")
    regularization: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Weight lambda of scale, shape and center. The invariance has 1 - lambda. The authors have 0.9 for"
        " ImageNet and 0.6 for Imagenette.",
    )
    slices: int = Field(4096, ge=1, description="Number of random directions, drawn anew for each batch.")


class WMSEOptions(ssl_dc.PartOptions):
    """Options of the objective ``wmse``."""

    name: str = "wmse"
    width: int = Field(
        64,
        ge=2,
        description="Width of the embedding. A batch and a sub-batch need at least twice as many images.",
    )
    hidden_width: int = Field(1024, ge=2, description="Width of the projector's hidden layer.")
    sub_batch: int = Field(
        128,
        ge=4,
        description="Images that are whitened together. The global batch is divided at random into equal parts, as many"
        " as have at least this size.",
    )
    partitions: int = Field(
        1, ge=1, description="Random divisions of each batch that the loss is averaged over; 4 for larger images."
    )
    shrinkage: float = Field(
        0.0, ge=0, le=1, description="Share of the identity in the covariance that is whitened. It keeps it invertible."
    )

    @model_validator(mode="after")
    def _enough_images(self) -> WMSEOptions:
        if self.sub_batch < 2 * self.width:
            raise ValueError(f"sub_batch {self.sub_batch} must be at least twice the width, {self.width}")
        return self


class DINOOptions(ssl_dc.MomentumOptions):
    """Options of the objective ``dino``."""

    name: str = "dino"
    width: int = Field(65536, ge=2, description="Number of soft classes K. Small data sets need fewer.")
    hidden_width: int = Field(2048, ge=2, description="Width of the head's two hidden layers.")
    bottleneck_width: int = Field(256, ge=2, description="Width of the layer before the last one.")
    student_temperature: float = Field(0.1, gt=0, description="Temperature of the student's softmax.")
    teacher_temperature: float = Field(0.07, gt=0, description="Temperature of the teacher's softmax after its warm-up.")
    warmup_temperature: float = Field(0.04, gt=0, description="Temperature of the teacher's softmax at the first step.")
    warmup_share: float = Field(
        0.3, ge=0, le=1, description="Share of the training in which the teacher's temperature goes from one to the other."
    )
    center_momentum: float = Field(0.9, ge=0, le=1, description="Share of itself that the center keeps at each batch.")
    teacher_views: int = Field(
        2,
        ge=2,
        description="How many views the teacher sees at most, from the first, and no local ones. The student sees all.",
    )
