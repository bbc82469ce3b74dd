"""python -m perceptual.cli"""

from perceptual.cli import entry

entry()
