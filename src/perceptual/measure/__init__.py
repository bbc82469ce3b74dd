"""Measurements: metrics of images, and the tables of super-resolution."""
