"""Runs on disk: saved whole, restored whole, in the safetensors format."""

from netcl.checkpoint.bundle import PendingSave, load, save
from netcl.checkpoint.foreign import to_torch_state_dict

__all__ = ["PendingSave", "load", "save", "to_torch_state_dict"]
