"""Sparse coding of natural images."""
