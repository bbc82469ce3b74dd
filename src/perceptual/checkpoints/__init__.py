"""Files of trained networks: safetensors files with a card in the header. Reading a file never runs code."""

from perceptual.checkpoints.card import Card, read_card
from perceptual.checkpoints.file import body_digest, join, load, save, save_targets
from perceptual.checkpoints.foreign import is_foreign, load_foreign
from perceptual.checkpoints.hub import download, is_hub_name, parse_hub_name
from perceptual.checkpoints.publish import model_card, push, save_folder
from perceptual.checkpoints.shipped import find_network, find_style, gallery, guess, written_as
from perceptual.checkpoints.state import load_state, save_state

__all__ = [
    "Card",
    "body_digest",
    "download",
    "find_network",
    "find_style",
    "gallery",
    "guess",
    "is_foreign",
    "is_hub_name",
    "join",
    "load",
    "load_foreign",
    "load_state",
    "model_card",
    "parse_hub_name",
    "push",
    "read_card",
    "save",
    "save_folder",
    "save_state",
    "save_targets",
    "written_as",
]
