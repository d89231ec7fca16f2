"""Rows that count and look up neighbours: nothing is trained by gradients."""
