"""Options whose module imports torch, though it need not."""

import torch
from pydantic import Field

from ssl_dc.plugins.options import PartOptions


class ImportsTorch(PartOptions):
    name: str = "imports_torch"
    largest: float = Field(torch.finfo(torch.float16).max, description="Largest number.")
