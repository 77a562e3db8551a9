"""What must hold of a wheel that is given away: `python check_wheel.py WHEEL...`, after a build.

Its tags are those of MLX's own wheels, its extension finds MLX beside itself and needs nothing else
that a bare system lacks, and nothing in it tells of the machine that built it. Needs packaging, and
pyelftools (Linux) or macholib (macOS).
"""

import io
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.utils import parse_wheel_filename

PYTHONS = [f"cp3{minor}" for minor in range(10, 15)]
PLATFORMS = ["manylinux_2_35_x86_64", "manylinux_2_35_aarch64", "macosx_14_0_arm64"]
MEGABYTES = 10
LINUX_LIBRARIES = {
    *("libmlx.so", "libscipy_openblas.so"),  # in packages that this one depends on
    *("libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6"),
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
}
LINUX_RPATH = ["$ORIGIN/../mlx/lib", "$ORIGIN/../scipy_openblas32/lib"]
MACOS_LIBRARIES = {"@rpath/libmlx.dylib"}
MACOS_RPATH = ["@loader_path/../mlx/lib"]


def faults(wheel: Path) -> list[str]:
    """What is wrong with a wheel, in sentences."""
    found = []
    tags = {(x.interpreter, x.abi, x.platform) for x in parse_wheel_filename(wheel.name)[3]}
    expected = {(python, python, platform) for python in PYTHONS for platform in PLATFORMS}
    if len(tags) != 1 or not tags <= expected:
        found.append(f"its tag must be one of {PYTHONS}, and one of {PLATFORMS}.")
    if wheel.stat().st_size > MEGABYTES << 20:
        found.append(f"it has {wheel.stat().st_size >> 20} MB; at most {MEGABYTES} are expected.")
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if odd := [x for x in files if not re.match(r"mlx_esm_kernels(-[\d.]+\.dist-info)?/", x)]:
        found.append(f"it holds what is not of the package: {odd}.")
    extensions = [name for name in files if re.search(r"\.(so|dylib)\b", name)]
    if len(extensions) != 1:
        found.append(f"it must hold one extension and no other library; it has {extensions}.")
    places = {str(place).encode() + b"/" for place in (Path.cwd(), Path.home(), "/tmp")}
    for name, content in files.items():
        if named := sorted(place.decode() for place in places if place in content):
            found.append(f"{name} names a place of this machine: {named}.")
    for name in extensions:
        is_elf = files[name].startswith(b"\x7fELF")
        found += [f"{name} {x}" for x in (linux_links if is_elf else macos_links)(files[name])]
    return found


def linux_links(extension: bytes) -> list[str]:
    from elftools.elf.elffile import ELFFile

    tags = list(ELFFile(io.BytesIO(extension)).get_section_by_name(".dynamic").iter_tags())
    needed = {x.needed for x in tags if x.entry.d_tag == "DT_NEEDED"}
    rpaths = [x.rpath for x in tags if x.entry.d_tag == "DT_RPATH"]
    rpaths += [x.runpath for x in tags if x.entry.d_tag == "DT_RUNPATH"]
    return wrong_links(needed - LINUX_LIBRARIES, ":".join(rpaths).split(":"), LINUX_RPATH)


def macos_links(extension: bytes) -> list[str]:
    from macholib import mach_o
    from macholib.MachO import MachO

    with tempfile.NamedTemporaryFile() as file:
        file.write(extension)
        file.flush()
        (header,) = MachO(file.name).headers
    texts: dict[int, list[str]] = {}
    for load, _, data in header.commands:
        if isinstance(data, bytes):
            texts.setdefault(load.cmd, []).append(data.rstrip(b"\0").decode())
    loads = (mach_o.LC_LOAD_DYLIB, mach_o.LC_LOAD_WEAK_DYLIB, mach_o.LC_REEXPORT_DYLIB)
    needed = {x for kind in loads for x in texts.get(kind, [])}
    ours = {x for x in needed if not x.startswith(("/usr/lib/", "/System/Library/"))}
    return wrong_links(ours - MACOS_LIBRARIES, texts.get(mach_o.LC_RPATH, []), MACOS_RPATH)


def wrong_links(odd: set[str], rpath: list[str], expected: list[str]) -> list[str]:
    found = []
    if odd:
        found.append(f"needs {sorted(odd)}, which not every system has.")
    if rpath != expected:
        found.append(f"must have the rpath {expected}; it has {rpath}.")
    return found


if __name__ == "__main__":
    wrong = [f"{wheel}: {fault}" for wheel in sys.argv[1:] for fault in faults(Path(wheel))]
    sys.exit("\n".join(wrong) or None)
