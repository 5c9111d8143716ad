"""Numba kernels on the threads that torch computes with: a second pool of threads would compete for the same cores.

`@kernel` makes a `Kernel` of an ordinary function over arrays, which every thread of a team runs:

    @kernel
    def shift(team, k: int, h_TF: F32, bias_F: F32 | None = None, *, sums_PF: F32): ...

    shift.run(num_threads, T=3, F=40, k=2, h_TF=h)

The annotation of an array is its dtype, and the end of its name its shape: `h_TF` is [T, F] with the sizes that `run`
is given, `scales_F3` is [F, 3], and P is the number of threads. Of a union, `run` takes the dtype that has `itemsize`
bytes. None is an array without entries. Arrays after `*` are scratch, which `run` allocates; they hold anything.
"""

import ctypes
import functools
import hashlib
import inspect
import logging
import math
import re
import threading
from array import array as array_of
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

B8 = NDArray[np.bool_]
I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_MOST_BYTES_KEPT = 2**26
_logger = logging.getLogger(__name__)


class Team(NamedTuple):
    """What a member of a team knows: its number, how many members there are, and the address of torch's barrier."""

    member: np.int64
    size: np.int64
    barrier: np.int64


def _runtime() -> tuple[Any, list[int]]:
    """The function that starts a team in torch's OpenMP runtime, and the addresses that members call; 0 without one."""
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


class _Scratch(threading.local):
    """Memory for the kernels that this thread starts, kept from call to call unless it is large."""

    kept: Tensor | None = None

    def take(self, num_bytes: int) -> Tensor:
        if self.kept is not None and self.kept.nbytes >= num_bytes:
            return self.kept
        taken = torch.empty(num_bytes, dtype=torch.uint8, device="cpu")
        if num_bytes <= _MOST_BYTES_KEPT:
            self.kept = taken
        return taken


_scratch = _Scratch()


class Kernel:
    """A function over arrays that a team runs: compiled at its first run, and kept on disk if a folder is writable."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        parameters = [*inspect.signature(function).parameters.values()][1:]  # the first is the team
        self._dtypes = {p.name: _dtypes(p.annotation) for p in parameters if p.annotation is not int}
        self._sizes = sorted({part for name in self._dtypes for part in _shape(name) if part.isalpha()} - {"P"})
        self._optional = {p.name for p in parameters if p.default is None}
        self._scratch = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self._parameters = [p.name for p in parameters]
        self._places = functools.lru_cache(1024)(self._scratch_places)
        self._pack = self._packer()
        self._compiled: dict[int, tuple[Any, int, Callable[[int], None]]] = {}

    def run(self, num_threads: int, itemsize: int = 4, **arguments: Any) -> None:
        """Run on at most `num_threads` threads of torch's pool, and wait; on one where torch has no GOMP runtime.

        Sizes, numbers and tensors go by name; tensors must be contiguous and as large as their sizes say.
        """
        is_alone, held = num_threads == 1, []  # the scratch, until the call is over
        values = self._pack(_ALONE if is_alone else _team, num_threads, itemsize, held, **arguments)
        _, address, call = self._compiled.get(itemsize) or self._compile(itemsize)
        if is_alone or _start is None:
            call(values.buffer_info()[0])
        else:
            _start(address, values.buffer_info()[0], num_threads, 0)

    def _packer(self) -> Callable[..., Any]:
        """The function of the kernel's parameters and sizes that puts them, as int64, where the entry reads them."""
        given = [name for name in self._parameters if name not in self._scratch]
        sizes = ", ".join(self._sizes)
        signature = ", ".join([*self._sizes, *(f"{n}=None" if n in self._optional else n for n in given)])
        values = [f"{n}.data_ptr()" if n in self._dtypes else n for n in given]
        values = [
            f"0 if {n} is None else {v}" if n in self._optional else v for n, v in zip(given, values, strict=True)
        ]
        source = f"def {self.function.__name__}(team, P, itemsize, held, *, {signature}):\n"
        packed = f"*team, P, {', '.join([*self._sizes, *values])}, *scratch(held, itemsize, P, {sizes})"
        source += f" return array_of('q', ({packed}))"
        namespace = {"array_of": array_of, "scratch": self._scratch_addresses}
        exec(source, namespace)
        self._slots = ["P", *self._sizes, *given, *self._scratch]
        return namespace[self.function.__name__]

    def _scratch_addresses(self, held: list[Tensor], *sizes: int) -> list[int]:
        """Addresses of the scratch arrays in memory that `held` then owns."""
        places, num_bytes = self._places(*sizes)
        if not places:
            return places
        held.append(_scratch.take(num_bytes))
        base = held[0].data_ptr()
        return [base + place for place in places]

    def _scratch_places(self, itemsize: int, num_threads: int, *sizes: int) -> tuple[list[int], int]:
        """Byte offsets of the scratch arrays, each on a cache line of its own, and the bytes of all."""
        known = dict(zip(self._sizes, sizes, strict=True)) | {"P": num_threads}
        places, end = [], 0
        for name in self._scratch:
            places.append(end)
            num_entries = math.prod(known[part] if part in known else int(part) for part in _shape(name))
            end += (num_entries * np.dtype(self._dtype(name, itemsize)).itemsize + 63) // 64 * 64
        return places, end

    def _dtype(self, name: str, itemsize: int) -> type[np.generic]:
        dtypes = self._dtypes[name]
        return next((one for one in dtypes if np.dtype(one).itemsize == itemsize), dtypes[0])

    def _compile(self, itemsize: int) -> tuple[Any, int, Callable[[int], None]]:
        compiled = _kept(self._entry(itemsize))
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)
        self._compiled[itemsize] = compiled, compiled.address, call
        return self._compiled[itemsize]

    def _entry(self, itemsize: int) -> Callable[..., None]:
        """The function that reads the arguments from an array of int64 and calls the kernel with them."""
        at = {name: f"a[{place}]" for place, name in enumerate(self._slots, 3)}
        namespace: dict[str, Any] = {"kernel": njit(self.function), "team": _member, "pointer": _pointer}
        namespace |= {"carray": carray, "__name__": self.function.__module__}
        arguments = []
        for name in self._parameters:
            value = at[name]
            if name in self._dtypes:
                first, *rest = [at.get(part, part) for part in _shape(name)]
                first = f"({first} if {value} != 0 else 0)" if name in self._optional else first
                dtype = self._dtype(name, itemsize)
                namespace[dtype.__name__] = dtype
                shape = f"({', '.join([first, *rest])},)"
                value = f"carray(pointer({value}, {dtype.__name__}), {shape}, {dtype.__name__})"
            arguments.append(value)
        call = f"kernel(team(a), {', '.join(arguments)})"
        source = f"def made(sources):\n def entry(a):\n  sources\n  {call}\n return entry"
        exec(compile(source, self.function.__code__.co_filename, "exec"), namespace)
        entry = namespace["made"](_sources())
        entry.__qualname__ = entry.__name__ = f"{self.function.__name__}_{itemsize}"
        return entry


kernel = Kernel


def _dtypes(annotation: Any) -> list[type[np.generic]]:
    """The dtypes of an array's annotation, without None."""
    arrays = get_args(annotation) if isinstance(annotation, UnionType) else [annotation]
    return [get_args(get_args(array)[1])[0] for array in arrays if array is not type(None)]


def _shape(name: str) -> list[str]:
    """The sizes that the end of an array's name is made of."""
    return re.findall(r"[A-Z]|\d+", name.rpartition("_")[2])


@functools.cache
def _sources() -> int:
    """A number for the sources of all kernels, which entries refer to: so it is part of their keys in Numba's cache."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return int.from_bytes(hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()[:7], "big")


def _kept(function: Callable[..., None]) -> Any:
    compiler = functools.partial(cfunc, types.void(types.CPointer(types.int64)))
    try:
        return compiler(cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        reason = str(error)
    except OSError as error:
        reason = f"{error} (set NUMBA_CACHE_DIR to a folder that can be written)"
    _logger.warning("%s: kernels are compiled again in each process", reason)
    return compiler()(function)


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


@njit
def _member(a):
    if a[0] == 0:
        return Team(np.int64(0), np.int64(1), np.int64(0))
    return Team(np.int64(_call(a[0])), np.int64(_call(a[1])), a[2])


@njit
def barrier(team):
    """Wait for all members."""
    if team.barrier != 0:
        _call(team.barrier)


@njit
def share(team, size):
    """The range of 0 to size that is this member's, as start and stop."""
    return size * team.member // team.size, size * (team.member + 1) // team.size
