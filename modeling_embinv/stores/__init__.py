"""Vectors from files of many kinds."""
