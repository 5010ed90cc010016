"""Published checkpoints as models of ours, and back to Hugging Face's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from perceiver_policy.checkpoints import deepmind, huggingface
from perceiver_policy.checkpoints.architecture import SEVEN
from perceiver_policy.checkpoints.compatibility import Compatibility, compatible
from perceiver_policy.checkpoints.huggingface_config import read_config, write_config
from perceiver_policy.checkpoints.names import CheckpointError, Weight, to_ours, to_theirs
from perceiver_policy.checkpoints.restricted_pickle import load_arrays
from perceiver_policy.config_files import load_named
from perceiver_policy.export_files import replaced_whole
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig

CONFIG_JSON = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PICKLES = (".pickle", ".pkl", ".pystate")


def import_checkpoint(
    path: str | Path, *, compat: Compatibility | str | None = None, model: str | None = None
) -> PerceiverIO:
    """Read a published checkpoint.

    Args:
        path: a folder of Hugging Face's, with config.json and model.safetensors or pytorch_model.bin, of any
            size; or a file of DeepMind's, or a folder with one such file.
        compat: whose outputs the model is to give where the two differ, ``hf`` or ``deepmind``; None: those
            of whom the checkpoint is from.
        model: of a file of DeepMind's: the configuration it is for, such as ``perceiver-io-flow``; None: told
            by the names in the file.

    Returns:
        The model, in evaluation mode, in float32.

    Raises:
        CheckpointError: no checkpoint there, or not one of a supported kind, or one that does not fit its
            model: every tensor is named.
        ConfigError: there is no configuration called ``model``.
    """
    path = Path(path)
    if compat is not None and compat not in list(Compatibility):
        raise CheckpointError(f"compat is {compat!r}; allowed: {', '.join(Compatibility)}")
    if (path / CONFIG_JSON).is_file():
        if model is not None:
            raise CheckpointError(f"model {model!r} is given, and {path / CONFIG_JSON} says what model it is")
        return _import_huggingface(path, Compatibility(compat or Compatibility.HF))
    return _import_deepmind(_pickle_in(path), Compatibility(compat or Compatibility.DEEPMIND), model)


def export_huggingface(
    model: PerceiverIO, directory: str | Path, *, ignore_differences: bool = False
) -> None:
    """Write a model as a folder that Hugging Face's transformers loads: config.json and model.safetensors.

    Args:
        model: like one of the seven published kinds.
        directory: made if need be; a folder of this kind that is there is replaced.
        ignore_differences: write it, too, if Hugging Face's class computes something else from these weights.

    Raises:
        CheckpointError: none of the seven, or different in what is named; or ``directory`` holds something
            else.
    """
    directory = Path(directory).absolute()
    if directory.exists():
        foreign = {p.name for p in directory.iterdir()} if directory.is_dir() else {"no folder"}
        foreign -= {CONFIG_JSON, *WEIGHTS}
        if foreign:
            raise CheckpointError(
                f"{directory} holds {', '.join(sorted(foreign)[:3])}, which no export does; choose another"
            )
    data, differences = write_config(model.config)
    theirs = _outline(read_config(data)[1])
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fits = shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    if differences and not (ignore_differences and fits):
        way_out = (
            "import it with compat 'hf', change its configuration, or have the differences ignored"
            if fits
            else "weights of these shapes do not fit there"
        )
        raise CheckpointError(
            f"{data['architectures'][0]} is another model: {'; '.join(differences)}. {way_out.capitalize()}"
        )
    weights = to_theirs(huggingface.names(theirs), model.state_dict())
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with replaced_whole(directory) as folder:
        text = json.dumps(data, indent=2) + "\n"
        (folder / CONFIG_JSON).write_text(text, encoding="utf-8")
        (folder / WEIGHTS[0]).write_bytes(save(tensors, metadata={"format": "pt"}))


def _import_huggingface(folder: Path, compat: Compatibility) -> PerceiverIO:
    try:
        data = json.loads((folder / CONFIG_JSON).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / CONFIG_JSON} is not JSON: {error}") from error
    _, config = read_config(data)
    outline = _outline(config)
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder} lacks the weights, {' or '.join(WEIGHTS)}")
    weights = huggingface.names(outline)
    return _build(compatible(config, compat), weights, _read_weights(path), outline, path)


def _import_deepmind(path: Path, compat: Compatibility, model: str | None) -> PerceiverIO:
    config = None if model is None else load_named(model, PerceiverIOConfig)
    content = load_arrays(path)
    trees = [content]
    if "params" in content:
        state = content.get("state")
        trees = [content["params"], {} if state is None else state]
    found = {name: tensor for tree in trees for name, tensor in _flatten(tree, path).items()}
    tensors = {name: tensor for name, tensor in found.items() if name not in deepmind.UNUSED}
    config = config or load_named(deepmind.released_model(tensors), PerceiverIOConfig)
    config = compatible(config, compat)
    outline = _outline(config)
    return _build(config, deepmind.names(outline), tensors, outline, path)


def _outline(config: PerceiverIOConfig) -> PerceiverIO:
    """The model without memory, however large the configuration says it is."""
    with torch.device("meta"):
        return PerceiverIO(config)


def _build(
    config: PerceiverIOConfig,
    weights: list[Weight],
    tensors: Mapping[str, Tensor],
    outline: PerceiverIO,
    path: Path,
) -> PerceiverIO:
    """The model with a checkpoint's tensors, which are checked before it is made."""
    state = to_ours(weights, tensors, outline.state_dict(), str(path))
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: draw none of the caller's
        model = PerceiverIO(config)
    model.load_state_dict(state)
    return model.eval()


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict. Of a .bin file, torch unpickles tensors alone."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in any way it likes
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is not a whole file of tensors: {reason}") from error
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(t, Tensor) and t.layout is torch.strided and not t.is_meta
        for name, t in loaded.items()
    ):
        raise CheckpointError(f"{path} holds something else than dense tensors by name")
    return dict(loaded)


def _pickle_in(path: Path) -> Path:
    """The one file of DeepMind's at, or in, a path."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist; give a folder with {CONFIG_JSON}, or a pickle")
    found = sorted(p for p in path.iterdir() if p.suffix in PICKLES)
    if len(found) != 1:
        holds = f"{len(found)} pickles" if found else f"neither {CONFIG_JSON} nor a pickle"
        raise CheckpointError(
            f"{path} holds {holds}; give a folder with {CONFIG_JSON} and {' or '.join(WEIGHTS)}, of one of "
            f"{SEVEN}; or one file of DeepMind's ({', '.join(PICKLES)})"
        )
    return found[0]


def _flatten(tree: Any, path: Path) -> dict[str, Tensor]:
    """Tensors of a mapping of scopes to mappings of names, by scope/name."""
    tensors = {}
    scopes = tree if isinstance(tree, Mapping) else {"": tree}
    for scope, parameters in scopes.items():
        for name, tensor in (parameters if isinstance(parameters, Mapping) else {"": parameters}).items():
            if not isinstance(tensor, Tensor):
                raise CheckpointError(
                    f"{path} has no arrays by scope and name: {scope or 'it'} holds {type(tensor).__name__}"
                )
            tensors[f"{scope}/{name}"] = tensor
    return tensors
