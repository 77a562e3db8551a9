"""What machine and which versions this is, as a report names them."""

from __future__ import annotations

import importlib.metadata
import os
import platform


def system_name() -> str:
    """The operating system with its version."""
    mac = platform.mac_ver()[0]
    return f"macOS {mac} {platform.machine()}" if mac else platform.platform()


def memory_gb() -> float | None:
    """Memory in 2^30 bytes; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def versions(*packages: str) -> dict[str, str]:
    """Of Python, and of packages by their names on PyPI."""
    found = {"python": platform.python_version()}
    return found | {package: importlib.metadata.version(package) for package in packages}
