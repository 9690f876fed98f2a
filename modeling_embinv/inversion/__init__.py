"""Texts of many vectors, written in parts."""
