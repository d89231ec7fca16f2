"""What networks over histories share: histories as tensors, batches, blocks, losses, the training loop."""
