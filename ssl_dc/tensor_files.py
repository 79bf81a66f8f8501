"""Tensors in safetensors files: written whole with a checksum, executed never, held to the shapes of a network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn, uint8

from ssl_dc.atomic_files import open_regular, write_bytes
from ssl_dc.errors import RunError
from ssl_dc.printable import name_of

LARGEST_HEADER = 100_000_000
"""Size in bytes of the header of a safetensors file, at most, as the format has it."""
FRAMEWORK = {"format": "pt"}
"""What transformers and other readers look for in the metadata of a file with tensors of torch's."""
CHECKSUM = "ssl_dc.sha256"
"""Key of the checksum of all tensors, in the metadata of a safetensors file."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write tensors as safetensors, whole or not at all, with their checksum; those that share memory are written apart.

    Args:
        path: The file.
        tensors: By name.
        metadata: Becomes part of the file's metadata.

    Returns:
        The SHA-256 of the file, in hex.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = _with_sorted_metadata(save_tensors(plain, {**FRAMEWORK, **(metadata or {}), CHECKSUM: checksum(plain)}))
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file; nothing in it is executed.

    Args:
        path: The file.
        sha256: What its SHA-256 must be, if known.

    Raises:
        RunError: If it is not there, not whole, or not the file that was written: a file that holds the checksum of its
            tensors is held to it.
    """
    content = _read_whole(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise RunError(f"{path} is damaged: its checksum is not the one that was recorded when it was written")
    return parse_tensors(content, path)


def parse_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file; nothing in it is executed.

    Args:
        content: The whole file.
        path: Where it comes from, for messages.

    Raises:
        RunError: If it is not whole, or does not have the checksum that it was written with.
    """
    try:
        tensors = load_tensors(content)
        recorded = _metadata(content).get(CHECKSUM)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise _not_safetensors(path, content, error) from error
    if recorded is not None and recorded != checksum(tensors):
        raise RunError(f"{path} is damaged: its tensors are not those whose checksum it was written with")
    return tensors


def _read_whole(path: Path) -> bytes:
    """The content of a safetensors file, once its size is what its header says, so that no more memory is taken."""
    start = b""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(min(length, LARGEST_HEADER))
            if 8 + length + _data_size(header) != size:
                raise ValueError(f"it has {size:,} bytes, and its header speaks of another number")
            return start + header + file.read()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise _not_safetensors(path, start, error) from error


ARCHIVE = b"PK\x03\x04"
"""How files begin that ``torch.save`` writes: archives with a pickle in them. Long ago they were pickles alone."""


def _not_safetensors(path: Path, start: bytes, error: BaseException) -> RunError:
    """What is wrong with a file that cannot be parsed as safetensors, from how it begins."""
    if start.startswith(ARCHIVE) or _is_pickle(start):
        return RunError(
            f"{path} is a pickle, as torch.save writes it, and no safetensors file. A pickle can run code, so it is not"
            " opened. Allowed is a safetensors file: save_file of safetensors.torch writes one of a state_dict"
        )
    return RunError(f"{path} is not a whole safetensors file: {name_of(str(error))}")


def _is_pickle(start: bytes) -> bool:
    """Whether a file begins as a pickle, and its first eight bytes are no length of a header that can be."""
    return start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and any(start[4:8])


def _data_size(header: bytes) -> int:
    """How many bytes of tensors a header speaks of."""
    entries = json.loads(header)
    return max((int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"), default=0)


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the format's library writes them in another order each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[8 + length :]))


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes that say how long its header is, then the header, as JSON."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__") or {})


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values of tensors on the CPU, in hex."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode("utf-8", "surrogatepass"))
        digest.update(tensor.contiguous().flatten().view(uint8).numpy().data)
    return digest.hexdigest()


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Load tensors into a module, all and only its own.

    Args:
        module: The network that the run's config names.
        tensors: By name.
        source: Where they come from, for messages.

    Raises:
        RunError: If names, shapes or dtypes differ; the message says which.
    """
    check_fit(module, tensors, source)
    module.load_state_dict(dict(tensors))


SHOWN = 3
"""How many tensors that do not fit a message names."""


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Check that tensors are those of a module, as :func:`fill` does.

    Raises:
        RunError: If names, shapes or dtypes differ; the message names the first of them, and the likely cause.
    """
    own = module.state_dict()
    problems = [f"missing {name} {tuple(own[name].shape)}" for name in own if name not in tensors]
    problems += [f"unknown {name_of(name)} {_shape(tensors[name])}" for name in tensors if name not in own]
    problems += [
        f"{name} is {_described(tensors[name])}, but the network's is {_described(value)}"
        for name, value in own.items()
        if name in tensors and (tensors[name].shape, tensors[name].dtype) != (value.shape, value.dtype)
    ]
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        cause = _likely_cause(own, tensors)
        raise RunError(f"{source} does not hold the weights of the network in config.json:{shown}{more}{cause}")


def _likely_cause(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Why the tensors of a file may not be those of a network, as a line; empty if they say nothing of it."""
    shared = [name for name in own if name in tensors]
    if not shared:
        return "\nThe file is of another kind of network: no name fits."
    if len(shared) < len(own) or len(shared) < len(tensors):
        return "\nPerhaps config.json names other parts than the training had: backbone, encoder, norm or gating."
    kernels = [name for name in shared if name.endswith(".weight") and own[name].ndim == tensors[name].ndim == 4]
    wider = [name for name in kernels if own[name].shape[0] != tensors[name].shape[0]]
    if wider:
        there, here = tensors[wider[0]].shape[0], own[wider[0]].shape[0]
        return (
            f"\nThe weights are of a network of another width: {wider[0]} has {there} output channels in the file, and"
            f" {here} by config.json. Is its backbone.width that of the training?"
        )
    return ""


def _described(tensor: Tensor) -> str:
    return f"{_shape(tensor)} {str(tensor.dtype).removeprefix('torch.')}"


def _shape(tensor: Tensor) -> str:
    return name_of(str(tuple(tensor.shape)))
