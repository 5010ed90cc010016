"""DeepMind's pickles: made here from models of ours by names written down once more, and read back."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perceiver_policy.checkpoints import CheckpointError, Compatibility, import_checkpoint
from perceiver_policy.config_files import load_named
from perceiver_policy.model import PerceiverIO
from perceiver_policy.model_config import PerceiverIOConfig

MODELS = ("language-bytes", "imagenet-learned", "imagenet-fourier", "imagenet-conv", "flow", "multimodal")
Tree = dict[str, dict[str, np.ndarray]]


def made(name: str) -> PerceiverIO:
    """A small model, every weight of it drawn."""
    torch.manual_seed(3)
    model = PerceiverIO(load_named(f"perceiver-io-{name}-small", PerceiverIOConfig)).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
            else:
                tensor.fill_(23)
    return model


def linear(weight: Tensor, bias: Tensor) -> dict[str, np.ndarray]:
    return {"w": weight.numpy().T.copy(), "b": bias.numpy()}


def layer_norm(module: Any) -> dict[str, np.ndarray]:
    return {"scale": module.weight.detach().numpy(), "offset": module.bias.detach().numpy()}


def attention_layer(scope: str, layer: Any, *, crosses: bool) -> Tree:
    attention = layer.attention
    qk = attention.num_qk_channels
    if crosses:
        query, key_value = attention.query, attention.key_value
        rows = [
            (query.weight, query.bias),
            (key_value.weight[:qk], key_value.bias[:qk]),
            (key_value.weight[qk:], key_value.bias[qk:]),
        ]
        norms = [layer.query_norm, layer.key_value_norm, layer.mlp_norm]
    else:
        every = attention.query_key_value
        cuts = [slice(0, qk), slice(qk, 2 * qk), slice(2 * qk, None)]
        rows = [(every.weight[cut], every.bias[cut]) for cut in cuts]
        norms = [layer.query_norm, layer.mlp_norm]
    rows.append((attention.output.weight, attention.output.bias))
    suffixes = ["", "_1", "_2", "_3"]
    tree = {f"{scope}/attention/linear{suffixes[i]}": linear(*row) for i, row in enumerate(rows)}
    tree |= {f"{scope}/layer_norm{suffixes[i]}": layer_norm(norm) for i, norm in enumerate(norms)}
    tree[f"{scope}/mlp/linear"] = linear(layer.mlp[0].weight, layer.mlp[0].bias)
    tree[f"{scope}/mlp/linear_1"] = linear(layer.mlp[2].weight, layer.mlp[2].bias)
    return tree


def released(name: str, model: Any) -> tuple[Tree, Tree]:
    """Parameters and state of a model as DeepMind's file has them."""
    encoder = "encoder" if name == "multimodal" else "perceiver_encoder"
    params = {f"{encoder}/~/trainable_position_encoding": {"pos_embs": model.encoder.latents.numpy()}}
    params |= attention_layer(f"{encoder}/~/cross_attention", model.encoder.cross_attentions[0], crosses=True)
    for i, layer in enumerate(model.encoder.blocks[0]):
        scope = f"{encoder}/~/self_attention" + (f"_{i}" if i else "")
        params |= attention_layer(scope, layer, crosses=False)
    decoder = {
        "language-bytes": "basic_decoder",
        "flow": "flow_decoder/~/basic_decoder",
        "multimodal": "multimodal_decoder/~/basic_decoder",
    }.get(name, "classification_decoder/~/basic_decoder")
    params |= attention_layer(f"{decoder}/cross_attention", model.decoder.cross_attention, crosses=True)
    if name.startswith("imagenet") or name == "language-bytes":
        params[f"{decoder}/~/trainable_position_encoding"] = {"pos_embs": model.query.query.numpy()}
    if name.startswith("imagenet") or name == "flow":
        params[f"{decoder}/output"] = linear(model.head.linear.weight, model.head.linear.bias)
    state: Tree = {}
    inputs = model.input
    if name == "language-bytes":
        params["embed"] = {"embeddings": inputs.embedding.weight.numpy()}
        params["trainable_position_encoding"] = {"pos_embs": inputs.positions.table.numpy()}
        params["embedding_decoder"] = {"bias": model.head.bias.numpy()}
    elif name == "imagenet-learned":
        pixels = linear(inputs.projection.weight, inputs.projection.bias)
        params["image_preprocessor/~/conv2_d"] = pixels | {"w": pixels["w"][None, None]}
        scope, position = "image_preprocessor/~_build_network_inputs", inputs.position
        table = {"pos_embs": position.positions.table.numpy()}
        params[f"{scope}/trainable_position_encoding"] = table
        projector = linear(position.projection.weight, position.projection.bias)
        params[f"{scope}/position_encoding_projector/linear"] = projector
    elif name == "imagenet-conv":
        scope, norm = "image_preprocessor/~/conv2_d_downsample/~", inputs.stem.norm
        kernel = np.einsum("oihw->hwio", inputs.stem.convolution.weight.numpy())
        params[f"{scope}/conv"] = {"w": np.ascontiguousarray(kernel)}
        params[f"{scope}/batchnorm"] = {k: v[None, None, None] for k, v in layer_norm(norm).items()}
        for average, values in (("mean_ema", norm.running_mean), ("var_ema", norm.running_var)):
            state[f"{scope}/batchnorm/~/{average}"] = {
                "average": values.numpy()[None, None, None],
                "hidden": values.numpy()[None, None, None] / 2,
                "counter": np.array(23, np.int32),
            }
    elif name == "flow":
        params["image_preprocessor/patches_linear"] = linear(inputs.projection.weight, inputs.projection.bias)
    elif name == "multimodal":
        params |= multimodal(model)
    return params, state


def multimodal(model: Any) -> Tree:
    """What is the modalities' own."""
    shared, own = model.head.shared, model.head.reconstruction.linears
    label = model.query.providers["label"].query
    params = {
        "multimodal_decoder/~/basic_decoder/output": linear(shared.weight, shared.bias),
        "classification_decoder/~/basic_decoder/~/trainable_position_encoding": {"pos_embs": label.numpy()},
        "audio_postprocessor/linear": linear(own["audio"].weight, own["audio"].bias),
        "projection_postprocessor/linear": linear(own["image"].weight, own["image"].bias),
        "classification_postprocessor/linear": linear(own["label"].weight, own["label"].bias),
    }
    for name in ("audio", "image", "label"):
        rows = {
            f"multimodal_preprocessor/{name}_padding": model.input.padding.vectors[name],
            f"multimodal_preprocessor/{name}_mask_token": model.input.mask_tokens[name],
            f"multimodal_decoder/~decoder_query/{name}_padding": model.query.padding.vectors[name],
        }
        params |= {scope: {"pos_embs": row.detach().numpy()[None]} for scope, row in rows.items()}
    return params


class Jax:
    """Pickles as JAX's arrays do."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        function, args, state = self.array.__reduce__()
        about = {"weak_type": False, "named_shape": {}}
        return sys.modules["jax._src.device_array"].reconstruct_device_array, (function, args, state, about)


def haiku_pickle(tree: Any, protocol: int, *, jax: bool) -> bytes:
    """The tree as Haiku's mappings of NumPy's arrays or JAX's, in a pickle."""
    haiku, device = types.ModuleType("haiku._src.data_structures"), types.ModuleType("jax._src.device_array")

    class FlatMapping(dict):  # type: ignore[type-arg]
        def __reduce__(self) -> Any:
            return type(self), (dict(self),)

    def reconstruct_device_array() -> None: ...

    for module, member in ((haiku, FlatMapping), (device, reconstruct_device_array)):
        member.__module__, member.__qualname__ = module.__name__, member.__name__
        setattr(module, member.__name__, member)

    def wrapped(value: Any) -> Any:
        if isinstance(value, dict):
            return FlatMapping({key: wrapped(item) for key, item in value.items()})
        return Jax(value) if jax else value

    # Both packages need not be there to write such a file, and must not be there to read it.
    names = ("haiku", "haiku._src", haiku.__name__, "jax", "jax._src", device.__name__)
    before = {name: sys.modules.get(name) for name in names}
    try:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        sys.modules[haiku.__name__], sys.modules[device.__name__] = haiku, device
        return pickle.dumps(wrapped(tree), protocol)
    finally:
        for name, module_before in before.items():
            del sys.modules[name]
            if module_before is not None:
                sys.modules[name] = module_before


def write(path: Path, name: str, model: PerceiverIO, protocol: int = 4, *, jax: bool = False) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        params, state = released(name, model)
    tree: Any = {"params": params, "state": state} if name.startswith("imagenet") else params
    path.write_bytes(haiku_pickle(tree, protocol, jax=jax))
    return path


@pytest.mark.parametrize(("protocol", "jax"), [(2, False), (3, True), (4, True), (5, False)])
@pytest.mark.parametrize("name", MODELS)
def test_every_weight_finds_its_place(name: str, protocol: int, jax: bool, tmp_path: Path) -> None:
    expected = made(name)
    path = write(tmp_path / "checkpoint.pystate", name, expected, protocol, jax=jax)
    loaded = import_checkpoint(path, model=f"perceiver-io-{name}-small")
    assert not loaded.training
    state = loaded.state_dict()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(state[key], tensor), key
    assert loaded.encoder.config.activation == "gelu_tanh", "as DeepMind computes it"
    assert "haiku" not in sys.modules


def test_a_folder_with_one_pickle(tmp_path: Path) -> None:
    expected = made("flow")
    write(tmp_path / "optical_flow_checkpoint.pystate", "flow", expected)
    loaded = import_checkpoint(tmp_path, compat=Compatibility.HF, model="perceiver-io-flow-small")
    assert loaded.config.encoder.activation == "gelu"
    assert torch.equal(loaded.encoder.latents, expected.encoder.latents)
    write(tmp_path / "another.pickle", "flow", expected)
    with pytest.raises(CheckpointError, match="holds 2 pickles"):
        import_checkpoint(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_the_released_model_is_told_by_its_names(name: str, tmp_path: Path) -> None:
    """It is too large for these weights: each is named with both shapes."""
    model = made(name)
    path = write(tmp_path / "checkpoint.pickle", name, model)
    scope = "encoder" if name == "multimodal" else "perceiver_encoder"
    full = load_named(f"perceiver-io-{name}", PerceiverIOConfig).encoder
    shapes = (tuple(model.encoder.latents.shape), (full.num_latents, full.num_latent_channels))
    with pytest.raises(CheckpointError) as error:
        import_checkpoint(path)
    message = (
        f"{scope}/~/trainable_position_encoding/pos_embs is {shapes[0]}, the model calls for {shapes[1]}"
    )
    assert message in str(error.value)


def test_names_of_no_released_model(tmp_path: Path) -> None:
    path = tmp_path / "other.pickle"
    path.write_bytes(pickle.dumps({"transformer/linear": {"w": np.zeros((2, 2), np.float32)}}))
    with pytest.raises(CheckpointError, match=r"perceiver-io-flow.*begins with transformer/linear/w"):
        import_checkpoint(path)


def test_all_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with torch.no_grad():
        model = made("imagenet-conv").requires_grad_(False)
        params, state = released("imagenet-conv", model)
    del params["perceiver_encoder/~/cross_attention/mlp/linear"]["b"]
    params["perceiver_encoder/~/self_attention/layer_norm"]["scale"] = np.ones(3, np.float32)
    params["surprise"] = {"w": np.ones((2, 5), np.float32)}
    params["classification_decoder/~/basic_decoder/output"]["b"][0] = np.nan
    path = tmp_path / "checkpoint.pystate"
    path.write_bytes(haiku_pickle({"params": params, "state": state}, 4, jax=False))
    with pytest.raises(CheckpointError) as error:
        import_checkpoint(path, model="perceiver-io-imagenet-conv-small")
    width = model.config.encoder.num_latent_channels
    for part in (
        f"missing perceiver_encoder/~/cross_attention/mlp/linear/b, shape ({width},)",
        f"perceiver_encoder/~/self_attention/layer_norm/scale is (3,), the model calls for ({width},)",
        "surplus surprise/w, shape (2, 5)",
        "classification_decoder/~/basic_decoder/output/b has values that are NaN or infinite",
    ):
        assert part in str(error.value)
    assert str(error.value).count(";") == 3, "nothing else is wrong"
