"""The precisions in which a compiled network multiplies."""

from __future__ import annotations

FLOAT32 = "float32"
BF16 = "bf16"
INT8 = "int8"
PRECISIONS = (FLOAT32, BF16, INT8)
