"""Proteins of thousands of residues, whole: right, and in memory that grows with their length."""

import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from float64_model import float64_representation
from random_models import esm2

from mlx_esm_kernels import embed
from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES
from mlx_esm_kernels.models.esm1 import predict_contact_rows

MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from mlx_esm_kernels import ESM1, ESM1Config, embed, score_variants
from mlx_esm_kernels.inference.contacts import contact_rows

what, length = sys.argv[1], int(sys.argv[2])
model = ESM1(ESM1Config.esm2(1, 32, 2, contact_head=True))
text = "".join(np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), length))
def peak():
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux that starts at what the parent held when it forked.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
if what == "embed":
    list(embed(model, [text]))
elif what == "score":
    score_variants(model, text, [f"{text[i]}{i + 1}A" for i in range(0, length, 100)])
else:
    next(contact_rows(model, model.alphabet.encode(text)))
print(peak() - before)
"""


def sequence(length):
    return "".join(np.random.default_rng(0).choice(list(STANDARD_RESIDUES), length))


def bytes_more(what, length):
    """What a process takes on top of a model when it does that to a protein."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, what, str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout)


@pytest.mark.parametrize("what", ["embed", "score", "contacts"])
def test_there_is_no_array_of_all_pairs(what):
    length = 8000
    assert 0 < bytes_more(what, length) < length**2 * 4 / 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["embed", "score"])
def test_memory_grows_with_the_length_and_not_with_its_square(what):
    assert bytes_more(what, 34_350) < 2.5 * bytes_more(what, 17_175)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mlx_esm_kernels.inference.requirements.LongProteinWarning")
def test_each_residue_is_that_of_float64_alone_packed_and_padded():
    model, text = esm2(), sequence(8200)
    tokens = model.alphabet.with_specials(model.alphabet.encode(text))
    expected = float64_representation(model, tokens)[model.alphabet.residue_slice]
    (alone,) = embed(model, [text], include=("per-residue",))
    segments = np.repeat([1, 2, 3], [500, len(tokens), 300])
    packed = np.concatenate([tokens[:500], tokens, tokens[:300]])
    packed = model.encode(mx.array(packed[None]), mx.array(segments[None]))[0, 500:]
    padding = np.full(700, model.alphabet.padding_idx)
    padded = model.encode(mx.array(np.concatenate([tokens, padding])[None]))[0]
    for found in (alone.per_residue[2], packed[1:], padded[1:]):
        np.testing.assert_allclose(np.array(found)[: len(text)], expected, atol=5e-5)


@pytest.mark.slow
def test_contacts_that_come_by_rows_are_those_that_come_at_once():
    model = esm2()
    tokens = mx.array(model.alphabet.with_specials(model.alphabet.encode(sequence(4200))))
    at_once = model(tokens[None], return_contacts=True)["contacts"][0]
    rows = list(predict_contact_rows(model, tokens))
    assert len(rows) > 1
    np.testing.assert_allclose(np.array(mx.concatenate(rows)), np.array(at_once), atol=1e-6)
