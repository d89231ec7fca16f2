"""Rows that read the dislikes of a user as a sequence."""
