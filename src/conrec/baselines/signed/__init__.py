"""Rows that read likes and dislikes, each for what it is."""
