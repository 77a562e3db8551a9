"""Heads on a model: fitted to labelled proteins, judged beside baselines, kept to predict with."""
