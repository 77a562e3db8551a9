"""What a trained model is used for: embeddings, likelihoods, sampling, variants."""
