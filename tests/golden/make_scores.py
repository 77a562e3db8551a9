"""Writes fair_esm_scores.npz: a small random model, a made-up scan, and fair-esm's scores of it.

The maths is that of fair-esm's examples/variant-prediction/predict.py: `label_row` and the loops of
its main. Its compute_pppl leaves out the last two residues and reads its tokens one place off; here
every residue is asked about.

Needs torch and fair-esm 2.0.0, which the tests do not: pip install torch fair-esm==2.0.0 numpy
"""

import argparse
from pathlib import Path

import esm
import numpy as np
import torch

LAYERS, WIDTH, FFN, HEADS, MAX_POSITIONS = 2, 8, 16, 2, 24
SEQUENCE = "HPETLVKVKDAEDQWXYBGC"
OFFSET = 24


def random_model() -> tuple[torch.nn.Module, esm.Alphabet]:
    alphabet = esm.Alphabet.from_architecture("roberta_large")
    sizes = argparse.Namespace(
        arch="roberta_large",
        layers=LAYERS,
        embed_dim=WIDTH,
        ffn_embed_dim=FFN,
        attention_heads=HEADS,
        max_positions=MAX_POSITIONS,
        token_dropout=True,
        emb_layer_norm_before=True,
    )
    model = esm.ProteinBertModel(sizes, alphabet)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        model.embed_tokens.weight[alphabet.padding_idx] = 0
    return model.eval(), alphabet


def some_mutants() -> list[str]:
    """Forty single substitutions, the ends among them, and five of several."""
    rng = np.random.default_rng(0)
    places = [0, len(SEQUENCE) - 1, *rng.integers(0, len(SEQUENCE), 38)]
    single = [
        f"{SEQUENCE[i]}{i + OFFSET}{rng.choice(list('ACDEFGHIKLMNPQRSTVWY'))}" for i in places
    ]
    several = []
    for count in (2, 2, 3, 3, 5):
        chosen = rng.choice(len(SEQUENCE), count, replace=False)
        several.append(
            ":".join(f"{SEQUENCE[i]}{i + OFFSET}{rng.choice(list('AKW'))}" for i in chosen)
        )
    return single + several


def log_probabilities(model, tokens):
    with torch.no_grad():
        return torch.log_softmax(model(tokens)["logits"], dim=-1)


def masked_log_probabilities(model, alphabet, tokens):
    """(1, L, V): each position from a pass in which it is masked."""
    rows = []
    for i in range(tokens.size(1)):
        copy = tokens.clone()
        copy[0, i] = alphabet.mask_idx
        rows.append(log_probabilities(model, copy)[:, i])
    return torch.cat(rows, dim=0).unsqueeze(0)


def label_row(row, sequence, table, alphabet, offset):
    total = 0.0
    for one in row.split(":"):
        wild_type, place, mutant = one[0], int(one[1:-1]) - offset, one[-1]
        assert sequence[place] == wild_type
        # One more for the cls in front.
        new, old = (
            table[0, 1 + place, alphabet.get_idx(mutant)],
            table[0, 1 + place, alphabet.get_idx(wild_type)],
        )
        total += (new - old).item()
    return total


def log_likelihood(row, sequence, model, alphabet, offset):
    letters = list(sequence)
    for one in row.split(":"):
        letters[int(one[1:-1]) - offset] = one[-1]
    _, _, tokens = alphabet.get_batch_converter()([("", "".join(letters))])
    table = masked_log_probabilities(model, alphabet, tokens)
    return sum(table[0, i, tokens[0, i]].item() for i in range(1, len(sequence) + 1))


def scores_of(model, alphabet, sequence, mutants, offset) -> dict[str, np.ndarray]:
    _, _, tokens = alphabet.get_batch_converter()([("", sequence)])
    seen, masked = (
        log_probabilities(model, tokens),
        masked_log_probabilities(model, alphabet, tokens),
    )
    return {
        "wt-marginals": np.array([label_row(m, sequence, seen, alphabet, offset) for m in mutants]),
        "masked-marginals": np.array(
            [label_row(m, sequence, masked, alphabet, offset) for m in mutants]
        ),
        "pseudo-perplexity": np.array(
            [log_likelihood(m, sequence, model, alphabet, offset) for m in mutants]
        ),
    }


def main() -> None:
    torch.manual_seed(0)
    model, alphabet = random_model()
    mutants = some_mutants()
    state = {
        key: value.numpy()
        for key, value in model.state_dict().items()
        if not key.startswith("contact_head") and key != "lm_head.weight"  # tied
    }
    np.savez_compressed(
        Path(__file__).with_name("fair_esm_scores.npz"),
        sequence=SEQUENCE,
        offset=OFFSET,
        mutants=np.array(mutants),
        **scores_of(model, alphabet, SEQUENCE, mutants, OFFSET),
        **{f"model.{key}": value for key, value in state.items()},
    )


if __name__ == "__main__":
    main()
