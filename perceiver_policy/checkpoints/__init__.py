"""The published Perceiver checkpoints: Hugging Face's folders both ways, DeepMind's pickles in.

model = import_checkpoint("vision-perceiver-fourier/")
export_huggingface(model, "mine/")
"""

from perceiver_policy.checkpoints.compatibility import Compatibility, compatible
from perceiver_policy.checkpoints.convert import export_huggingface, import_checkpoint
from perceiver_policy.checkpoints.names import CheckpointError

__all__ = ["CheckpointError", "Compatibility", "compatible", "export_huggingface", "import_checkpoint"]
