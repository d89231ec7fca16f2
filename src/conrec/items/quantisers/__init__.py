"""From an embedding to codes and back: RQ-VAE, residual k-means, and what they share."""
