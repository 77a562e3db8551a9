"""Alphabets: which residue is which token, and which special tokens stand around a protein.

Token order and ids are those of the released models (`esm.Alphabet.from_architecture` of "ESM-1b",
which ESM-1v shares, and "ESM-1"), so weights can travel both ways.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
STANDARD_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
ESM1B_TOKENS = ("<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, "<null_1>", "<mask>")
ESM1_TOKENS = ("<null_0>", *ESM1B_TOKENS[1:-1], "<cls>", "<mask>", "<sep>")

_SPACES = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_NOT_ASCII = re.compile(r"[^\0-\x7f]")


class UnknownResidueWarning(UserWarning):
    """Some characters of the input are not residues; they were read as `<unk>`."""


class Alphabet:
    """Tokens, their ids, and the way from letters to ids and back.

    Attributes:
        tokens: tuple of str, the token of each id.
        prepend_cls, append_eos: bool, whether a protein stands between `<cls>` and `<eos>`.
        cls_idx, padding_idx, eos_idx, unk_idx, mask_idx: ids of the special tokens.
        amino_acid_ids: (20,) uint8, ids of the standard residues, in the order of
            `STANDARD_RESIDUES`; read-only.

    Raises:
        ValueError: a token is missing, occurs twice, or there are more than 256 of them.
    """

    def __init__(
        self,
        tokens: Iterable[str] = ESM1B_TOKENS,
        *,
        prepend_cls: bool = True,
        append_eos: bool = True,
    ) -> None:
        self.tokens = tuple(tokens)
        self.prepend_cls, self.append_eos = prepend_cls, append_eos
        ids = {token: i for i, token in enumerate(self.tokens)}
        if len(ids) != len(self.tokens):
            twice = sorted(token for token, n in Counter(self.tokens).items() if n > 1)
            raise ValueError(f"[Alphabet] every token must occur once; got {twice} more than once.")
        if len(ids) > 256:
            raise ValueError(f"[Alphabet] at most 256 tokens fit one byte each; got {len(ids)}.")
        needed = ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *STANDARD_RESIDUES)
        missing = [token for token in needed if token not in ids]
        if missing:
            raise ValueError(f"[Alphabet] tokens must include {missing}; got {list(self.tokens)}.")
        self.cls_idx = ids["<cls>"]
        self.padding_idx = ids["<pad>"]
        self.eos_idx = ids["<eos>"]
        self.unk_idx = ids["<unk>"]
        self.mask_idx = ids["<mask>"]
        self.amino_acid_ids = np.array([ids[r] for r in STANDARD_RESIDUES], dtype=np.uint8)
        self.amino_acid_ids.flags.writeable = False
        letters = [token for token in self.tokens if len(token) == 1 and token.isascii()]
        table = bytearray([self.unk_idx]) * 256
        for letter in letters:
            table[ord(letter.lower())] = table[ord(letter.upper())] = ids[letter]
        self._ids, self._unk = bytes(table), bytes([self.unk_idx])
        both_cases = "".join(letters).lower() + "".join(letters).upper()
        self._known = re.compile(rf"[\s{re.escape(both_cases)}]+")

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alphabet) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.tokens, self.prepend_cls, self.append_eos

    @property
    def num_specials(self) -> int:
        """How many of `<cls>` and `<eos>` stand around a protein: 0, 1 or 2."""
        return int(self.prepend_cls) + int(self.append_eos)

    @property
    def residue_slice(self) -> slice:
        """Where the residues are in the tokens of a protein: less `<cls>` and `<eos>`."""
        return slice(int(self.prepend_cls), -1 if self.append_eos else None)

    def with_specials(self, ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """(N,) residue ids -> (N + num_specials,) int32, `<cls>` and `<eos>` around them."""
        tokens = np.empty(len(ids) + self.num_specials, dtype=np.int32)
        if self.prepend_cls:
            tokens[0] = self.cls_idx
        if self.append_eos:
            tokens[-1] = self.eos_idx
        tokens[self.residue_slice] = ids
        return tokens

    def __repr__(self) -> str:
        return f"Alphabet({len(self)} tokens: {' '.join(self.tokens)})"

    def encode(self, sequence: str, unknown: Counter[str] | None = None) -> npt.NDArray[np.uint8]:
        """Residue ids of a sequence, without cls and eos.

        Lower case is read as upper case; spaces and line ends are ignored; any other character
        that is not a residue becomes `<unk>`.

        Args:
            sequence: one letter per residue.
            unknown: a counter to which the characters read as `<unk>` are added.

        Returns:
            (number of residues,) uint8.
        """
        letters = sequence
        if not letters.isascii():
            letters = _NOT_ASCII.sub("\0", "".join(sequence.split()))
        # bytes.translate is a look-up table run in C: 1 ns a residue, and little for each protein.
        ids = bytearray(letters, "ascii").translate(self._ids, _SPACES)
        if unknown is not None and self._unk in ids:
            unknown.update(self._known.sub("", sequence))
        return np.frombuffer(ids, dtype=np.uint8)

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids: letters for residues, `<...>` for special tokens.

        Args:
            ids: (N,) integer, each in [0, len(alphabet)).

        Raises:
            ValueError: an id has no token.
        """
        flat = np.asarray(ids).reshape(-1)
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            worst = flat.min() if flat.min() < 0 else flat.max()
            raise ValueError(f"[decode] ids must be in [0, {len(self)}); got {worst}.")
        return "".join([self.tokens[i] for i in flat.tolist()])

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs to build the same alphabet; goes into JSON as it is."""
        return {
            "tokens": list(self.tokens),
            "prepend_cls": self.prepend_cls,
            "append_eos": self.append_eos,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Alphabet:
        """The alphabet that `to_dict` described; cls and eos are both there unless it says not.

        Raises:
            ValueError: `state` is not such a description.
        """
        tokens = state.get("tokens") if isinstance(state, Mapping) else None
        if not isinstance(tokens, (list, tuple)) or not all(isinstance(t, str) for t in tokens):
            raise ValueError(
                f'[Alphabet.from_dict] expected {{"tokens": [a list of str]}}; got {state!r}.'
            )
        specials = {name: state.get(name, True) for name in ("prepend_cls", "append_eos")}
        for name, value in specials.items():
            if not isinstance(value, bool):
                raise ValueError(f"[Alphabet.from_dict] {name} must be a bool; got {value!r}.")
        return cls(tokens, **specials)


def warn_unknown(unknown: Counter[str]) -> None:
    """Say in one `UnknownResidueWarning` which characters were read as `<unk>`, and how often.

    Args:
        unknown: what `Alphabet.encode` counted; nothing is said where it is empty.
    """
    total = sum(unknown.values())
    if not total:
        return
    shown = unknown.most_common(10)
    listed = ", ".join(f"{character!r} ({count:,} times)" for character, count in shown)
    more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
    what = "1 character is no residue and was" if total == 1 else "characters are no residues"
    if total > 1:
        what = f"{total:,} {what} and were"
    warnings.warn(f"{what} read as <unk>: {listed}{more}.", UnknownResidueWarning, stacklevel=2)


ESM1B = Alphabet()
ESM1_ALPHABET = Alphabet(ESM1_TOKENS, append_eos=False)
