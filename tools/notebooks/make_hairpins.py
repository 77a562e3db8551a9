"""Writes what the notebooks read: hairpins.fasta, an invented family, and hairpin.pdb, its fold.

No protein of nature is in either. The fold is two strands side by side, joined by a tight turn,
from ideal bond lengths and angles. Of every three positions of a strand, two have a residue that
goes with the one across: opposite charges, or like with like. So what varies together in the
sequences is what touches in the fold, as in a family of nature.
"""

import textwrap
from pathlib import Path

import numpy as np

from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES
from mlx_esm_kernels.data.synthetic import BACKGROUND, MATE, Family

LENGTH, PROTEINS = 40, 2000
STRAND = 19  # residues; i stands across LENGTH - 1 - i, and two residues turn
_LOYALTY = 0.9  # how often a residue has its mate across, as in the built-in sample

# Torsions (phi, psi) in degrees that lay the strands side by side, with the hydrogen bonds of an
# antiparallel sheet (N to O 2.9 angstrom): even and odd positions, those at the turn, the turn.
_EVEN, _ODD = (-108.2, 137.4), (-101.3, 115.2)
_TURN = ((-140.6, 131.2), (61.8, 31.4), (76.2, -10.1), (-97.9, 143.3))

_THREE = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWY",
        textwrap.wrap("ALACYSASPGLUPHEGLYHISILELYSLEUMETASNPROGLNARGSERTHRVALTRPTYR", 3),
        strict=True,
    )
)


def family(rng):
    """Positions of their own, which are well conserved, and pairs across the hairpin."""
    profile = np.stack([rng.dirichlet(4.0 * BACKGROUND + 1e-3) for _ in range(LENGTH)])
    for place, residue in ((STRAND, "N"), (STRAND + 1, "G")):  # as most tight turns have
        profile[place] = 0.1 * BACKGROUND
        profile[place, STANDARD_RESIDUES.index(residue)] += 0.9
    first = np.array([place for place in range(STRAND) if place % 3])
    pairs = np.stack([first, LENGTH - 1 - first], axis=1)
    joints = np.empty((len(pairs), len(BACKGROUND), len(BACKGROUND)))
    for joint, (i, j) in zip(joints, pairs, strict=True):
        profile[i] = rng.dirichlet(20.0 * BACKGROUND)
        profile[j] = profile[i][MATE]
        joint[:] = _LOYALTY * np.eye(len(BACKGROUND))[MATE] + (1 - _LOYALTY) * profile[j]
        joint *= profile[i][:, None]
    return Family(profile, pairs, joints)


def fasta(rng):
    """The family's sequences as text."""
    drawn = family(rng).draw(PROTEINS, rng)
    sequences = ["".join(STANDARD_RESIDUES[place] for place in row) for row in drawn]
    return "".join(f">hairpin_{n}\n{text}\n" for n, text in enumerate(sequences, start=1))


def backbone():
    """(LENGTH, 4, 3) positions of N, CA, C and O in angstrom."""
    torsions = [_ODD if min(i, LENGTH - 1 - i) % 2 else _EVEN for i in range(LENGTH)]
    torsions[STRAND - 1 : STRAND + 3] = _TURN
    n, ca = np.zeros(3), np.array([1.458, 0.0, 0.0])
    c = _placed(np.array([0.0, 1.0, 0.0]), n, ca, 1.525, 111.0, torsions[0][0] - 180)
    atoms = []
    for (_, psi), (phi, _) in zip(torsions, [*torsions[1:], (0, 0)], strict=True):
        atoms.append([n, ca, c, _placed(n, ca, c, 1.231, 120.5, psi + 180)])
        following = _placed(n, ca, c, 1.329, 116.6, psi)
        ca_following = _placed(ca, c, following, 1.458, 121.7, 180)
        n, ca, c = following, ca_following, _placed(c, following, ca_following, 1.525, 111.0, phi)
    return _laid_flat(np.array(atoms))


def _laid_flat(atoms):
    """The same with its middle at 0, the strands along x, and side by side along y."""
    ca = atoms[:, 1]
    x = ca[STRAND - 1 : STRAND + 3].mean(axis=0) - ca[[0, -1]].mean(axis=0)
    x /= np.linalg.norm(x)
    y = ca[-STRAND:].mean(axis=0) - ca[:STRAND].mean(axis=0)
    y -= (y @ x) * x
    y /= np.linalg.norm(y)
    return (atoms - ca.mean(axis=0)) @ np.stack([x, y, np.cross(x, y)], axis=1)


def _placed(a, b, c, length, angle, torsion):
    """The atom d with this bond c-d, angle b-c-d and torsion a-b-c-d."""
    angle, torsion = np.deg2rad([angle, torsion])
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, along)
    turned = np.cos(torsion) * across + np.sin(torsion) * normal
    return c + length * (np.sin(angle) * turned - np.cos(angle) * along)


def pdb(sequence):
    """The fold with the residues of a sequence, down to their C-betas, as text."""
    lines = ["REMARK   1 AN IDEAL HAIRPIN OF MADE-UP SEQUENCE, NO PROTEIN OF NATURE."]
    for number, (letter, four) in enumerate(zip(sequence, backbone(), strict=True), start=1):
        n, ca, c, _ = four
        b, d = ca - n, c - ca
        cb = ca - 0.58273431 * np.cross(b, d) + 0.56802827 * b - 0.54067466 * d
        for name, position in zip(("N", "CA", "C", "O", "CB"), (*four, cb), strict=True):
            if name == "CB" and letter == "G":
                continue
            x, y, z = position
            lines.append(
                f"ATOM  {len(lines):>5}  {name:<3} {_THREE[letter]} A{number:>4}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {name[0]}"
            )
    return "\n".join([*lines, "TER", "END"]) + "\n"


def main(folder):
    """Write both files; the first protein of the family is the one that has the fold."""
    text = fasta(np.random.default_rng(11))
    (folder / "hairpins.fasta").write_text(text, encoding="ascii", newline="\n")
    (folder / "hairpin.pdb").write_text(pdb(text.split("\n")[1]), encoding="ascii", newline="\n")


if __name__ == "__main__":
    main(Path(__file__).parents[2] / "docs" / "notebooks")
