"""Rows that spell an item out code by code with an encoder and a decoder."""
