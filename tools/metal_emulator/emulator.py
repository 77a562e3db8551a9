"""Runs launch plans on the CPU, with the checks that a GPU would not give."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metal_emulator.compiler import Library, cache_folder, compile_metal
from metal_emulator.translate import ONE_SIMDGROUP

_RUNTIME = Path(__file__).parent / "runtime"
_MAX_THREADS = 1024
_LANES = 32
_THREADGROUP_BYTES = 32768
_PAGE = 256  # Metal aligns allocations to a page; the widest access is 16 bytes
_COPIED_BYTES = 1 << 28  # an input with farther reach, rows with nothing between, is read in place

_one_at_a_time = threading.Lock()  # there is one GPU, and MLX has a thread for each stream

FORWARD, REVERSE = 0, 1  # orders of threads and threadgroups; larger numbers seed random ones
RANDOM = 7
_FILLS = ("pattern", "zero")  # what variables hold before they are set, in turn


class MetalFault(RuntimeError):
    """What a kernel or its launch did wrong."""


class _Counts(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("read_bytes", "reads", "written_bytes", "writes")
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("slot", ctypes.c_uint32),
        ("written", ctypes.c_uint32),
        ("address", ctypes.c_void_p),
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("defined", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("counts", _Counts),
        ("touched", ctypes.c_void_p),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint32 * 3),
        ("group", ctypes.c_uint32 * 3),
        ("threadgroup_bytes", ctypes.c_uint32),
        ("order", ctypes.c_uint32),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_uint32),
        ("threadgroup", _Counts),
        ("products", ctypes.c_uint64),
        ("barriers", ctypes.c_uint64),
        ("gathers", ctypes.c_uint64),
        ("fault", ctypes.c_char * 1024),
        ("fault_address", ctypes.c_uint64),
    ]


_TOUCH_BYTES = 32  # sizeof(Touch) in runtime/machine.h


@functools.cache
def _runtime() -> ctypes.CDLL:
    """The emulator's C++ part, built on first use."""
    hashed = hashlib.sha256()
    for path in sorted(_RUNTIME.glob("*")):
        hashed.update(path.read_bytes())
    library = cache_folder() / f"runtime_{hashed.hexdigest()[:24]}.so"
    if not library.exists():
        made = library.with_suffix(".tmp")
        sources = [str(path) for path in sorted(_RUNTIME.glob("*.cpp"))]
        command = ["c++", "-std=c++20", "-O2", "-fPIC", "-shared", "-o", str(made), *sources]
        subprocess.run(command, check=True)
        made.replace(library)
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


@functools.cache
def _loaded(source: str, fill: str) -> tuple[Library, ctypes.CDLL]:
    _runtime()
    library = compile_metal(source, fill)
    return library, ctypes.CDLL(str(library.path))


@dataclass
class Counts:
    """What launches of one kernel did: bytes by buffer name, and operations."""

    read: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    threadgroup_read: int = 0
    threadgroup_written: int = 0
    products: int = 0
    barriers: int = 0
    gathers: int = 0


@dataclass
class _Memory:
    """A plan's array, copied to where its alignment is as on a GPU."""

    name: str
    begin: int
    end: int
    written: bool
    block: np.ndarray
    start: int
    defined: np.ndarray | None

    @property
    def bytes(self) -> np.ndarray:
        return self.block[self.start : self.start + self.end - self.begin]


def _copied(name: str, begin: int, end: int, base: int, is_input: bool) -> _Memory:
    size = end - begin
    if is_input and size > _COPIED_BYTES:
        block = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(begin))
        return _Memory(name, begin, end, False, block, 0, None)
    block = np.empty(size + 2 * _PAGE, dtype=np.uint8)
    start = (begin - base - block.ctypes.data) % _PAGE
    memory = _Memory(name, begin, end, False, block, start, None)
    if is_input:
        ctypes.memmove(memory.bytes.ctypes.data, begin, size)
    else:
        memory.bytes[:] = 0xFF  # NaN in every format
        memory.defined = np.zeros(size, dtype=np.uint8)
    return memory


class Emulator:
    """Executes plans.

    Args:
        orders: of threads in which each plan runs, in turn with one and another content of
            variables that nothing has set; all must give the same bits.

    Attributes:
        counts: by kernel, of the first order.
    """

    def __init__(self, orders: tuple[int, ...] = (FORWARD, REVERSE, RANDOM)) -> None:
        self.orders = orders
        self.counts: dict[str, Counts] = defaultdict(Counts)

    def execute(self, plan: list[dict[str, Any]]) -> None:
        """Run a plan and write its outputs.

        Raises:
            MetalFault: a launch breaks a rule; the sentence says which, and where.
        """
        with _one_at_a_time:
            self._execute(plan)

    def _execute(self, plan: list[dict[str, Any]]) -> None:
        first: dict[str, _Memory] = {}
        for number, order in enumerate(self.orders):
            memories = self._memories(plan)
            for launch in plan:
                self._launch(launch, memories, order, number)
            for memory in memories.values():
                if memory.name.startswith("input"):
                    continue
                if memory.name.startswith("output") and not memory.defined.all():
                    at = int(np.argmin(memory.defined))
                    raise MetalFault(f"the plan never writes byte {at} of {memory.name}.")
                if number and not np.array_equal(memory.bytes, first[memory.name].bytes):
                    raise MetalFault(
                        f"{memory.name} depends on the order of the threads, or on variables that "
                        "nothing has set."
                    )
            first = first or memories
        for memory in first.values():
            if memory.name.startswith("output"):
                ctypes.memmove(memory.begin, memory.bytes.ctypes.data, memory.end - memory.begin)

    def _memories(self, plan: list[dict[str, Any]]) -> dict[str, _Memory]:
        memories: dict[str, _Memory] = {}
        for launch in plan:
            for buffer, base in zip(launch["buffers"], launch["bases"], strict=True):
                _, name, _, begin, end, _ = buffer
                if name not in memories:
                    memories[name] = _copied(name, begin, end, base, name.startswith("input"))
        return memories

    def _launch(
        self, launch: dict[str, Any], memories: dict[str, _Memory], order: int, number: int
    ) -> None:
        name = launch["kernel"]
        library, code = _loaded(launch["source"], _FILLS[number % len(_FILLS)])
        if name not in library.kernels:
            raise MetalFault(f"the source has no kernel {name}.")
        native = _Launch(kernel=name.encode(), order=order)
        _check_size(launch, code)
        keep = _bind(native, launch, library, memories)
        native.entry = ctypes.cast(code[f"emu_entry_{name}"], ctypes.c_void_p).value
        native.grid[:], native.group[:] = launch["grid"], launch["group"]
        native.threadgroup_bytes = launch["threadgroup_bytes"]
        _set_constants(launch, library, code)
        _runtime().emu_run(ctypes.byref(native))
        if native.fault:
            raise MetalFault(native.fault.decode() + _place(native.fault_address, library))
        if number == 0:
            self._count(name, native, keep)

    def _count(self, name: str, native: _Launch, buffers: list[_Buffer]) -> None:
        counts = self.counts[name]
        for buffer in buffers:
            counts.read[buffer.name.decode()] += buffer.counts.read_bytes
            counts.written[buffer.name.decode()] += buffer.counts.written_bytes
        counts.threadgroup_read += native.threadgroup.read_bytes
        counts.threadgroup_written += native.threadgroup.written_bytes
        counts.products += native.products
        counts.barriers += native.barriers
        counts.gathers += native.gathers


def _check_size(launch: dict[str, Any], code: ctypes.CDLL) -> None:
    name = launch["kernel"]
    threads = int(np.prod(launch["group"]))
    most = code[f"emu_max_threads_{name}"]() or _MAX_THREADS
    if not 0 < threads <= most or threads % _LANES:
        raise MetalFault(f"{name}: threads must be whole simdgroups up to {most}; got {threads}.")
    if threads == _LANES:
        raise MetalFault(f"{name}: {ONE_SIMDGROUP}")
    if not all(0 < size < 1 << 31 for size in launch["grid"]):
        raise MetalFault(f"{name}: the grid must not be empty; got {launch['grid']}.")
    declared = code[f"emu_threadgroup_bytes_{name}"]()
    if declared > _THREADGROUP_BYTES or declared != launch["threadgroup_bytes"]:
        raise MetalFault(
            f"{name}: the kernel declares {declared} bytes of threadgroup memory, of "
            f"{_THREADGROUP_BYTES} that there are; the plan says {launch['threadgroup_bytes']}."
        )


def _bind(
    native: _Launch, launch: dict[str, Any], library: Library, memories: dict[str, _Memory]
) -> list[_Buffer]:
    """Fill the launch's buffers; returns them, with what they point to kept alive."""
    slots = library.kernels[launch["kernel"]].slots
    bound = [b[0] for b in launch["buffers"]] + [c[0] for c in launch["constants"]]
    if sorted(bound) != sorted(slots):
        raise MetalFault(
            f"{launch['kernel']} has the buffers {sorted(slots)}; {sorted(bound)} are bound."
        )
    array = (_Buffer * len(bound))()
    keep: list[Any] = []
    for native_buffer, (slot, name, address, begin, _, written) in zip(
        array, launch["buffers"], strict=False
    ):
        memory = memories[name]
        data = memory.bytes.ctypes.data
        native_buffer.slot, native_buffer.name = slot, name.encode()
        native_buffer.address = data + address - begin
        native_buffer.begin, native_buffer.end = data, data + len(memory.bytes)
        if memory.defined is not None:
            native_buffer.defined = memory.defined.ctypes.data
        if written:
            touched = np.zeros(len(memory.bytes) * _TOUCH_BYTES, dtype=np.uint8)
            keep.append(touched)
            native_buffer.written, native_buffer.touched = 1, touched.ctypes.data
    for native_buffer, (slot, data) in zip(
        list(array)[len(launch["buffers"]) :], launch["constants"], strict=True
    ):
        block = np.zeros(len(data) + 2 * _PAGE, dtype=np.uint8)
        start = -block.ctypes.data % _PAGE
        block[start : start + len(data)] = np.frombuffer(data, dtype=np.uint8)
        keep.append(block)
        native_buffer.slot, native_buffer.name = slot, f"constants {slot}".encode()
        native_buffer.address = native_buffer.begin = block.ctypes.data + start
        native_buffer.end = native_buffer.begin + len(data)
    native.buffers, native.buffer_count = array, len(bound)
    native.keep = keep
    return list(array)


def _set_constants(launch: dict[str, Any], library: Library, code: ctypes.CDLL) -> None:
    given = dict(launch["function_constants"])
    if set(given) != set(library.constants):
        raise MetalFault(
            f"{launch['kernel']} has the function constants {sorted(library.constants)}; "
            f"{sorted(given)} are given."
        )
    kinds = {"bool": ctypes.c_bool, "int": ctypes.c_int32, "float": ctypes.c_float}
    for index, value in given.items():
        variable = kinds[library.constants[index]].in_dll(code, f"emu_constant_{index}")
        variable.value = value


def _place(address: int, library: Library) -> str:
    """The source line of an address in the library, where a tool to ask is at hand."""
    if not address:
        return ""
    base = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(library.path)):
            base = base or int(line.split("-")[0], 16)
    offset = hex(address - base - 1)
    try:
        command = ["addr2line", "-e", str(library.path), offset]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" At {Path(said).name}."
