"""Load models, tokenizers and image processors with transformers: quietly, completely, or with a one-line error."""

import contextlib
import io
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lazyneuron.errors import UsageError, explained_imports


@dataclass(frozen=True)
class Checkpoint:
    """Where a model's files are: `repository` is a folder or a hub id, `gguf_file` a file in that folder."""

    name: str
    repository: str
    gguf_file: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    @property
    def where(self) -> dict[str, Any]:
        """The arguments that every `from_pretrained` takes."""
        found: dict[str, Any] = {"trust_remote_code": self.trust_remote_code, "local_files_only": self.local_files_only}
        return found | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


@explained_imports("loading a checkpoint")
def load_model(checkpoint: Checkpoint, dtype: torch.dtype | None) -> tuple[nn.Module, list[str]]:
    """A checkpoint's model and notes for the user; UsageError if any of its weights is missing.

    The class is the one that the config names, with its head, otherwise AutoModel.
    """
    import transformers

    how: dict[str, Any] = {}
    if checkpoint.gguf_file and (packed := getattr(transformers, "GgufConfig", None)) is not None:
        how["quantization_config"] = packed(dequantize=True)
    try:
        # The progress bar for dequantizing cannot be switched off.
        with quiet(), contextlib.redirect_stderr(io.StringIO() if checkpoint.gguf_file else sys.stderr):
            config = transformers.AutoConfig.from_pretrained(checkpoint.repository, **checkpoint.where)
            model, info = _model_class(config, checkpoint).from_pretrained(
                checkpoint.repository,
                config=config,
                dtype=dtype or "auto",
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **checkpoint.where,
                **how,
            )
    except Exception as error:
        raise _refusal(checkpoint, error) from error
    notes = _check_whole(checkpoint.name, model, info)
    if config.architectures and (found := type(model).__name__) not in config.architectures:
        notes.append(f"{checkpoint.name} names the unknown class {config.architectures[0]}: loaded as {found}")
    return model, notes


def _model_class(config: Any, checkpoint: Checkpoint) -> Any:
    """The class that the config names, from transformers or the repository, otherwise an Auto class."""
    import transformers

    for architecture in config.architectures or ():
        found = getattr(transformers, architecture, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            if found.config_class is not None and isinstance(config, found.config_class):
                return found
        for auto, target in (getattr(config, "auto_map", None) or {}).items():
            if checkpoint.trust_remote_code and isinstance(target, str) and target.rpartition(".")[2] == architecture:
                return getattr(transformers, auto)
    if checkpoint.gguf_file:
        if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            return transformers.AutoModelForCausalLM
        if type(config) in transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            return transformers.AutoModelForSeq2SeqLM
    return transformers.AutoModel


def _check_whole(name: str, model: nn.Module, info: dict[str, Any]) -> list[str]:
    """Notes on weights that may be random; UsageError for any other missing or mismatched weight."""
    mismatched = sorted(found[0] for found in info["mismatched_keys"])
    is_headless = getattr(model, "base_model", None) is model
    pooler = {key for key in info["missing_keys"] if is_headless and "pooler" in key.split(".")}
    missing = sorted(set(info["missing_keys"]) - pooler)
    for keys, fault in ((missing, "lacks"), (mismatched, "has other shapes for")):
        if keys:
            shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            raise UsageError(
                f"{name} {fault} {len(keys)} weight(s) of {type(model).__name__} ({shown}), which would be "
                "random: it is incomplete or was saved from another class; save or download it again"
            )
    return [f"the pooler of {name} is random (not in the checkpoint); it comes after all MLPs"] if pooler else []


def load_tokenizer(checkpoint: Checkpoint) -> tuple[Any, list[str]]:
    """The tokenizer, or None and a note that says why."""
    import transformers

    found, notes = _load_processor(checkpoint, transformers.AutoTokenizer, "tokenizer", checkpoint.where)
    if found is not None and _is_empty(found):
        return None, [f"{checkpoint.name} has no tokenizer files"]
    return found, notes


def load_image_processor(checkpoint: Checkpoint) -> tuple[Any, list[str]]:
    """The image processor, or None and a note that says why.

    It uses Pillow, never torchvision, so pixels do not depend on what is installed.
    """
    import transformers

    where = checkpoint.where | {"backend": "pil"}
    return _load_processor(checkpoint, transformers.AutoImageProcessor, "image processor", where)


def _load_processor(checkpoint: Checkpoint, auto: Any, what: str, where: dict[str, Any]) -> tuple[Any, list[str]]:
    try:
        with quiet():
            return auto.from_pretrained(checkpoint.repository, **where), []
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise _refusal(checkpoint, error) from error
        why = "" if isinstance(error, OSError) else f" that can be loaded ({first_line(error)})"
        return None, [f"{checkpoint.name} has no {what}{why}"]


@explained_imports("loading a checkpoint")
def reaches_hub(repository: str, file: str, repo_type: str | None = None) -> bool:
    """Whether the hub can be reached, asked once without retries; UsageError if it refuses `repository`.

    transformers and datasets would retry for 23 seconds (huggingface_hub 2.4).
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(repository, file, repo_type=repo_type))
    except GatedRepoError as error:
        raise UsageError(f"{repository} is gated: accept its terms on the hub, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        hint = "correct the name or, if it is private, `hf auth login`"
        raise UsageError(f"{repository} is neither a folder here nor on the hub: {hint}") from error
    except EntryNotFoundError:
        return True
    except Exception:  # the HTTP client and its errors differ between versions of huggingface_hub
        return False
    return True


def _is_empty(tokenizer: Any) -> bool:
    """Whether it has only special tokens, as transformers builds it for a folder without tokenizer files."""
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return len(tokenizer.get_vocab().keys() - special) < 2


def _refusal(checkpoint: Checkpoint, error: Exception) -> UsageError:
    name = checkpoint.name
    if "trust_remote_code" in str(error):
        return UsageError(
            f"{name} has its own code, which is not run unless you allow it: read it, then pass --trust-remote-code"
        )
    if isinstance(error, pickle.UnpicklingError):
        return UsageError(f"{name} has a pickle that holds more than tensors and could run code: use safetensors")
    if checkpoint.local_files_only and isinstance(error, OSError):
        return UsageError(
            f"{name} is neither a folder here nor complete in the hub's cache, and the hub cannot be reached: check "
            "the network or give a local folder (HF_HUB_OFFLINE=1 uses the cache only)"
        )
    hint = "install that" if isinstance(error, ImportError) else "save or download it again"
    return UsageError(f"cannot load {name} ({first_line(error)}): {hint}")


def first_line(error: BaseException) -> str:
    """An exception's message in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".:") if len(text) <= 200 else f"{text[:200]}..."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports, but not downloads; ask the hub for no conversion."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    restore_hub = disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    converts = os.environ.get("DISABLE_SAFETENSORS_CONVERSION")
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    restore_hub()
    try:
        yield
    finally:
        if converts is None:
            del os.environ["DISABLE_SAFETENSORS_CONVERSION"]
        else:
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = converts
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
        restore_hub()
