"""From an item to its semantic ID: encoders, RQ-VAE, collisions, trie, diagnostics."""
