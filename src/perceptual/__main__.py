"""`python -m perceptual`, as the command `perceptual`."""

from perceptual.cli import entry

entry()
