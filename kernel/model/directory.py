"""Where a model is: a directory, a Hugging Face hub id, or the one that comes with Cadenza."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cadenza.kvfs.errors import Invalid, NotFound

BUNDLED = Path(__file__).parent / "bundled"
# Only what is data: no code, no pickles.
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# download(hub id) → the directory of its files
Download = Callable[[str], str]


def download_from_hub(hub_id: str) -> str:
    """Fetches what is missing of HUB_FILES into the hub's own cache, with its progress bar; blocks.

    Raises OSError or ValueError, as huggingface_hub does.
    """
    from huggingface_hub import snapshot_download

    return str(snapshot_download(hub_id, allow_patterns=list(HUB_FILES)))


def resolve_directory(model: str | Path | None = None, download: Download = download_from_hub) -> Path:
    """The directory of `model`: None is the bundled one, an existing directory is itself, else a hub id.

    Raises NotFound when there is no such thing (saying which was tried), Invalid when it is neither a path nor an id.
    """
    if model is None:
        return _bundled()
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise Invalid(f"{path} is a file; a model is a directory as Hugging Face writes it", field="model")
    if not HUB_ID.fullmatch(str(model)):
        raise NotFound(f"no directory {path}, and it is no hub id either (those look like owner/name)")
    return _downloaded(str(model), download)


def _bundled() -> Path:
    if not (BUNDLED / "config.json").exists():
        raise NotFound(f"the bundled model is missing ({BUNDLED}); name a model directory or a hub id")
    return BUNDLED


def _downloaded(hub_id: str, download: Download) -> Path:
    try:
        return Path(download(hub_id))
    except (OSError, ValueError) as fault:
        raise NotFound(
            f"there is no directory {hub_id}, and it could not be fetched from the Hugging Face hub: {fault}. "
            "Check the name and the network (gated models need HF_TOKEN), or give a directory"
        ) from fault
