"""Kernels for AArch64, which qemu runs on this machine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from ctypes import c_int64, sizeof
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_dc.compiled.int8_program import Int8Program
from ssl_dc.compiled.kernel import BF16, INT8, ROOM
from ssl_dc.compiled.kernel_interface import Op, Program, Site, State
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.plan import Plan
from tests.helpers.kernels_with_flags import flags_of

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
HARNESS = Path(__file__).with_suffix(".c")
LINE = 64
"""Every block of a case begins at a multiple of this; the kernel may read that far past the end of one."""


def missing() -> str:
    """Why nothing can be emulated here; empty if it can."""
    absent = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
    packages = "gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user"
    return f"{' and '.join(absent)} not found (Debian's packages {packages})" if absent else ""


class Processor(NamedTuple):
    """An AArch64 processor.

    Attributes:
        march: What the compiler is told.
        cpu: What the emulator is told.
        dot: The instructions by which its int8 kernel multiplies.
        bf16: Those by which its bf16 kernel does.
    """

    march: str
    cpu: str
    dot: str
    bf16: str


class Header(ctypes.Structure):
    """``Case`` of the C file."""

    _fields_ = tuple(
        (name, c_int64)
        for name in (
            *(
                "size",
                "program",
                "arena",
                "images",
                "arena_bytes",
                "scratch_floats",
                "kept_entries",
                "counts",
                "n",
                "threads",
            ),
        )
    )


class Answer(NamedTuple):
    """Features (N, feature_dim) float32 and open entries (N, entries) uint8."""

    features: Tensor
    opened: Tensor


@dataclass(frozen=True)
class EmulatedKernel:
    """A kernel for another processor. It has the attributes of :class:`ssl_dc.compiled.kernel_interface.Kernel`."""

    program: Path
    cpu: str
    vector: int
    block: int
    parts: int
    queries: int
    max_threads: int

    def run(self, plan: Plan, images: Tensor, threads: int) -> tuple[Answer, Answer]:
        """A plan on images (N, 3, H, W): the images side by side, and each by itself with all threads."""
        runner = NativeRunner(plan, self, threads)  # type: ignore[arg-type]
        answer = emulated(self.program, self.cpu, case=case_of(runner, images, threads))
        native = runner._program((images.shape[2], images.shape[3]))
        n, each = len(images), 4 * native.features + native.n_masks
        assert len(answer) == 2 * n * each
        apart = [_answer(answer[at : at + each], 1, native.features) for at in range(n * each, 2 * n * each, each)]
        joined = Answer(*(torch.cat(parts) for parts in zip(*apart, strict=True)))
        return _answer(answer[: n * each], n, native.features), joined

    def runs_on(self, cpu: str) -> bool:
        """Whether the kernel says that it runs on a processor."""
        return emulated(self.program, cpu, "sizes").startswith(b"1 ")


def _answer(answer: bytes, n: int, features: int) -> Answer:
    """What the C program wrote for n images."""
    end = 4 * n * features
    first = np.frombuffer(answer[:end], np.float32).reshape(n, -1).copy()
    second = np.frombuffer(answer[end:], np.uint8).reshape(n, -1).copy()
    return Answer(torch.from_numpy(first), torch.from_numpy(second))


def emulated(program: Path, cpu: str, *arguments: str, case: bytes = b"") -> bytes:
    """What an AArch64 program writes; a failure is raised with what it says."""
    done = subprocess.run([EMULATOR, "-cpu", cpu, program, *arguments], input=case, capture_output=True, check=False)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr.decode()[-2000:]}"
    return done.stdout


def built(file: str, processor: Processor, folder: Path, *more: str) -> EmulatedKernel:
    """A kernel compiled for a processor: ``kernel.c``, ``kernel_bf16.c`` or ``kernel_int8.c``."""
    program = folder / f"{file}-{processor.cpu}"
    flags = [flag for flag in flags_of(file) if flag not in ("-march=native", "-shared", "-fPIC")]
    sources = {"KERNEL": files(ROOM).joinpath(file), "PROCESSOR": files("ssl_dc.native").joinpath("processor.c")}
    included = [f'-D{name}="{path}"' for name, path in sources.items()]
    call = [COMPILER, *flags, f"-march={processor.march}", *more, "-static", *included, str(HARNESS), "-o", str(program)]
    subprocess.run(call, check=True)
    runs, *sizes, op, whole, state, dot = emulated(program, processor.cpu, "sizes").decode().split(" ")
    assert runs == "1"
    assert [int(op), int(whole), int(state)] == [sizeof(Op), sizeof(Program), sizeof(State)]
    assert dot == {INT8: processor.dot, BF16: processor.bf16}.get(file, "")
    return EmulatedKernel(program, processor.cpu, *map(int, sizes))


def case_of(runner: NativeRunner, images: Tensor, threads: int) -> bytes:
    """All that the program of a runner needs for some images, as ``emulated_kernel.c`` reads it."""
    native = runner._program((images.shape[2], images.shape[3]))
    assert not native.host_steps
    content = bytearray(sizeof(Header))

    def put(block: bytes) -> int:
        content.extend(bytes(-len(content) % LINE))
        start = len(content)
        content.extend(block)
        return start

    weights = runner._weights
    laid = [tensor for each in weights._of_steps.values() for tensor in (each.weight, each.bias, each.scale)]
    rules = [tensor for rule in weights._rules.values() if rule is not None for tensor in rule.tensors]
    vectors = native._vectors if isinstance(native, Int8Program) else []
    tensors = (tensor for tensor in (*laid, *rules, *vectors) if tensor is not None)
    places = {tensor.data_ptr(): put(_bytes_of(tensor)) for tensor in tensors}
    ops = (Op * len(native._ops)).from_buffer_copy(native._ops)
    for op in ops:
        for field in ("weight", "bias", "weight2", "bias2", "scale", "residual_scale"):
            if getattr(op, field):
                setattr(op, field, places[getattr(op, field)])
    program = Program.from_buffer_copy(native._program)
    program.ops = ctypes.cast(put(bytes(ops)), ctypes.POINTER(Op))
    program.sites = ctypes.cast(put(bytes(native._site_table)), ctypes.POINTER(Site))
    memory = native._image_memory()
    arena = _bytes_of(memory.arena)
    header = Header(
        program=put(bytes(program)),
        arena=put(arena),
        images=put(images.contiguous().numpy().tobytes()),
        arena_bytes=len(arena),
        scratch_floats=memory.scratch.numel(),
        kept_entries=memory.kept.numel(),
        counts=memory.count.numel(),
        n=len(images),
        threads=threads,
    )
    put(bytes(LINE))
    header.size = len(content)
    content[: sizeof(Header)] = bytes(header)
    return bytes(content)


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.view(torch.uint8).numpy().tobytes() if tensor.dtype is torch.bfloat16 else tensor.numpy().tobytes()
