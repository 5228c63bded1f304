"""Texts and laws become batches of tokens."""
