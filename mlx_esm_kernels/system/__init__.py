"""The terminal, signals, files and the cache folder: what knows nothing of proteins."""
