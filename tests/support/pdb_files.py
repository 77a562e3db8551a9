"""Small files of PDB, made by hand."""

import textwrap

import numpy as np

THREE = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWY",
        textwrap.wrap("ALACYSASPGLUPHEGLYHISILELYSLEUMETASNPROGLNARGSERTHRVALTRPTYR", 3),
        strict=True,
    )
)


def atom(name, residue, chain, number, position, *, alt="", b=10.0, hetero=False, insertion=""):
    """One line of an atom; its element is the first letter of its name."""
    x, y, z = position
    record = "HETATM" if hetero else "ATOM"
    return (
        f"{record:<6}{1:>5} {' ' + name:<4}{alt or ' '}{residue:>3} {chain}{number:>4}"
        f"{insertion or ' '}   {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{b:6.2f}          {name[0]:>2}\n"
    )


def residue(name, chain, number, position, **options):
    """N, CA, C, O and (not of glycine) CB, about 1.5 angstrom apart."""
    offsets = {"N": (-1.2, 0.8, 0), "CA": (0, 0, 0), "C": (1.2, 0.9, 0), "O": (1.2, 2.1, 0)}
    offsets["CB"] = (0, -0.8, 1.3)
    return "".join(
        atom(what, name, chain, number, np.add(position, offset), **options)
        for what, offset in offsets.items()
        if not (what == "CB" and name == "GLY")
    )


def protein(sequence, chain="A", positions=None, **options):
    """A chain of 3.8 angstrom steps, on a helix if `positions` is not given, ended by TER."""
    positions = helix(len(sequence)) if positions is None else positions
    lines = [
        residue(THREE[letter], chain, number, position, **options)
        for number, (letter, position) in enumerate(zip(sequence, positions, strict=True), start=1)
    ]
    return "".join(lines) + "TER\n"


def helix(length):
    """(length, 3) C-alphas of an alpha helix."""
    angle = np.deg2rad(100) * np.arange(length)
    return np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), 1.5 * np.arange(length)], axis=-1)
