"""What the benchmarks share; a subfolder, so that `make bench`, which runs every script beside it, leaves it alone."""
