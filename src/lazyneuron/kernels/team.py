"""Kernels on the threads that torch computes with: one pool, so that the two never fight for the cores.

Numba's own layers keep a pool beside torch's (its wheel asks for another copy of the OpenMP runtime), and the waiting
threads of one take the cores from the other. Here a compiled function is handed to torch's runtime itself.

A kernel is a `numba.cfunc` of the signature `KERNEL`: it reads its arguments from an array of int64, the first three of
which are the team's (`team`, `barrier`), and the rest what `Kernel.run` was given, tensors as addresses (`array`).
"""

import ctypes
import logging
from array import array as array_of
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic
from torch import Tensor

KERNEL = types.void(types.CPointer(types.int64))

_logger = logging.getLogger(__name__)


def _runtime() -> tuple[Any, list[int]]:
    """How to start a team in torch's OpenMP runtime, and the addresses that a member needs; all 0 without one."""
    folder = Path(torch.__file__).parent / "lib"
    for path in (*folder.glob("libtorch_cpu.*"), *folder.glob("lib[gi]omp*")):
        try:
            library = ctypes.CDLL(str(path))
            start = library.GOMP_parallel
            members = [library.omp_get_thread_num, library.omp_get_num_threads, library.GOMP_barrier]
        except (OSError, AttributeError):
            continue
        start.argtypes, start.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return start, [ctypes.cast(member, ctypes.c_void_p).value or 0 for member in members]
    return None, [0, 0, 0]


_start, _team = _runtime()
_ALONE = [0, 0, 0]


def kept_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` whose machine code is kept on disk, where some folder can be written."""
    return partial(_kept, partial(njit, **options))


def _kept(compiler: Callable[..., Any], function: Callable[..., Any]) -> Any:
    try:
        return compiler(cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        reason = str(error)
    except OSError as error:
        reason = f"{error} (NUMBA_CACHE_DIR tells where to)"
    _logger.warning("%s: kernels are compiled anew in each process", reason)
    return compiler()(function)


class Kernel:
    """A function compiled when it is first run, and kept on disk where some folder can be written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    @cached_property
    def compiled(self) -> Any:
        return _kept(partial(cfunc, KERNEL), self.function)

    def run(self, num_threads: int, *arguments: Tensor | int) -> None:
        """Run on at most `num_threads` threads of torch's pool, and wait. Tensors must be contiguous."""
        given = [x if isinstance(x, int) else x.data_ptr() for x in arguments]
        is_alone = num_threads == 1
        values = array_of("q", (_ALONE if is_alone else _team) + given)
        if is_alone or _start is None:
            self._call(values.buffer_info()[0])
        else:
            _start(self._address, values.buffer_info()[0], num_threads, 0)

    @cached_property
    def _address(self) -> int:
        return self.compiled.address

    @cached_property
    def _call(self) -> Callable[[int], None]:
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._address)


def _as_pointer(context: Any, address: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(types.int64, dtype), generate


def _as_call(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), []).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], function), [])

    return types.int32(types.int64), generate


_pointer: Any = intrinsic(_as_pointer)
_call: Any = intrinsic(_as_call)


@njit(inline="always")
def array(address, shape, dtype):
    """The array of that shape at an address, as `Kernel.run` was given it."""
    return carray(_pointer(address, dtype), shape, dtype)


@njit
def team(arguments):
    """Which member of the team this is, and how many there are: perhaps fewer than asked for."""
    if arguments[0] == 0:
        return np.int64(0), np.int64(1)
    return np.int64(_call(arguments[0])), np.int64(_call(arguments[1]))


@njit
def barrier(arguments):
    """Wait for all members."""
    if arguments[2] != 0:
        _call(arguments[2])
