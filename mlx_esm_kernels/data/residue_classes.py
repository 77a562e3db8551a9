"""The 20 amino acids: their names, and classes.

The classes are those of side chains in Nelson and Cox, "Lehninger Principles of Biochemistry",
chapter 3 (nonpolar aliphatic, aromatic, polar uncharged, positively and negatively charged), less
C, G and P, which are a class of their own for what no other side chain does: C makes bridges, G has
no side chain, and that of P closes a ring with the backbone.
"""

from __future__ import annotations

RESIDUE_NAMES = {
    "A": "alanine",
    "C": "cysteine",
    "D": "aspartate",
    "E": "glutamate",
    "F": "phenylalanine",
    "G": "glycine",
    "H": "histidine",
    "I": "isoleucine",
    "K": "lysine",
    "L": "leucine",
    "M": "methionine",
    "N": "asparagine",
    "P": "proline",
    "Q": "glutamine",
    "R": "arginine",
    "S": "serine",
    "T": "threonine",
    "V": "valine",
    "W": "tryptophan",
    "Y": "tyrosine",
}
RESIDUE_CLASSES = {
    "hydrophobic": "AILMV",
    "aromatic": "FWY",
    "polar": "NQST",
    "positive": "HKR",
    "negative": "DE",
    "special": "CGP",
}
