"""Where evaluate and judge write their figures: a file of json, and a picture."""

from __future__ import annotations

from pathlib import Path

from ..system.whole_file import OutputError, require_no_input, require_writable


def require_figure_files(
    json_file: Path | None, picture: Path | None, *given: str | Path | None
) -> None:
    """Refuse outputs that cannot be written, or are what was given.

    Raises:
        OutputError: they are such.
    """
    if picture is not None and picture.suffix != ".png":
        raise OutputError(f"{picture} must end in .png.")
    for path in (json_file, picture):
        if path is None:
            continue
        require_writable(path)
        require_no_input(path, *given)
    if json_file is not None and json_file == picture:
        raise OutputError(f"{picture} is the file of --json too; give one of them another name.")
