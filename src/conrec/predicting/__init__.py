"""Predict sets in bulk: for every user of a log, in shards, on one machine, under torchrun or on Spark."""
