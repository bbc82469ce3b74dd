"""Measurements: image metrics, and tables for super-resolution."""
