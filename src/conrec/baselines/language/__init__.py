"""Rows that are language models, tuned otherwise than CoNRec."""
