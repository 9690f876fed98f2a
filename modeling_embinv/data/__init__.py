"""Texts and vectors on their way in: files, tokens, encoders, pairs, batches."""
