"""The interface of the kernels (program.h): their structures, and the functions of a loaded library."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p

from ssl_dc.errors import RunError


class Activation(Structure):
    """The place of an activation in the arena."""

    _fields_ = (
        ("offset", c_int64),
        ("height", c_int32),
        ("width", c_int32),
        ("channels", c_int32),
        ("stride", c_int32),
        ("line", c_int32),
        ("plane", c_int32),
        ("fine", c_int64),
    )


class Op(Structure):
    """One operation of a program."""

    _fields_ = (
        ("kind", c_int32),
        ("activation", c_int32),
        ("kernel_h", c_int32),
        ("kernel_w", c_int32),
        ("step", c_int32),
        ("pad_h", c_int32),
        ("pad_w", c_int32),
        ("in_site", c_int32),
        ("out_site", c_int32),
        ("branch_site", c_int32),
        ("unless", c_int32),
        ("has_residual", c_int32),
        ("site", c_int32),
        ("hidden", c_int32),
        ("x", Activation),
        ("y", Activation),
        ("residual", Activation),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("weight2", c_void_p),
        ("bias2", c_void_p),
        ("scale", c_void_p),
        ("residual_scale", c_void_p),
        ("low", c_float),
        ("x_zero", c_int32),
        ("group_inputs", c_int32),
        ("group_outputs", c_int32),
        ("eps", c_float),
        ("heads", c_int32),
        ("head", c_int32),
        ("value_head", c_int32),
        ("spans", c_int32 * 3),
        ("scale_of_scores", c_float),
        ("z", Activation),
    )


class Site(Structure):
    """A gate site, or the channels that its entries stand for in some layer."""

    _fields_ = (("channels", c_int32), ("first", c_int32), ("span", c_int32), ("wider", c_int32))


class Program(Structure):
    """A plan at one image size."""

    _fields_ = (
        ("ops", POINTER(Op)),
        ("sites", POINTER(Site)),
        ("n_ops", c_int32),
        ("n_sites", c_int32),
        ("n_masks", c_int32),
        ("features", c_int32),
        ("input", Activation),
        ("output", c_int64),
        ("input_scale", c_float),
        ("input_zero", c_float),
    )


class State(Structure):
    """The memory in which one image is computed."""

    _fields_ = (
        ("sites", POINTER(Site)),
        ("arena", c_void_p),
        ("scratch", c_void_p),
        ("kept", c_void_p),
        ("count", c_void_p),
    )


class Kernel:
    """The functions of the loaded library.

    Args:
        library: A kernel, compiled and loaded.

    Attributes:
        vector: The channels of a pixel, and the rows of a gate's layers, are padded to a multiple of this.
        block: How many outputs have their weights side by side in a convolution that computes all outputs.
        parts: How many partial sums the mean of a channel is made of.
        queries: How many queries of attention are computed at once.
        max_threads: How many threads one call can use at most.

    Raises:
        RunError: If the library was compiled from another version of its source.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.run_many = library.ssl_dc_run_many
        self.run_many.argtypes = [
            POINTER(Program),
            POINTER(State),
            c_void_p,
            c_int64,
            c_void_p,
            c_void_p,
            c_void_p,
            c_int,
        ]
        self.run_many.restype = None
        self.run_one = library.ssl_dc_run_one
        self.run_one.argtypes = [POINTER(Program), POINTER(State), c_void_p, c_int, c_int, c_void_p]
        self.take = library.ssl_dc_take
        self.take.argtypes = [POINTER(Program), POINTER(State), c_void_p, c_void_p]
        self.take.restype = None
        self.vector: int = library.ssl_dc_vector()
        self.block: int = library.ssl_dc_block()
        self.parts: int = library.ssl_dc_parts()
        self.queries: int = library.ssl_dc_queries()
        self.max_threads: int = library.ssl_dc_max_threads()
        for name, struct in (("op", Op), ("program", Program), ("state", State)):
            if getattr(library, f"ssl_dc_size_of_{name}")() != ctypes.sizeof(struct):
                raise RunError(f"the compiled kernel has another layout of {name} than this ssl-dc")


def dot_product(library: ctypes.CDLL) -> str:
    """The instructions by which a kernel multiplies: ``avx512-vnni`` and the like; ``plain`` or ``float32`` if it has none.

    Args:
        library: kernel_int8.c or kernel_bf16.c, compiled and loaded.
    """
    library.ssl_dc_dot.restype = c_char_p
    name: bytes = library.ssl_dc_dot()
    return name.decode()
