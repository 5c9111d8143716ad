"""Load Hugging Face models that were saved with selections in force, and put these in force again."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lazyneuron.enforce.enforce import CONFIG_KEY, enforce
from lazyneuron.errors import UsageError
from lazyneuron.load.checkpoint import first_line
from lazyneuron.load.models import load
from lazyneuron.sites import clean_name, unwrap


def from_pretrained(
    name: str, *, device: str = "cpu", dtype: str | None = None, trust_remote_code: bool = False
) -> nn.Module:
    """Load the model `name` (as `lazyneuron.load.models.load` does) with the selections that it was saved with.

    `save_pretrained` writes the selections of an enforced model to config.json; a model without any is returned as it
    is. The model is in eval mode; `load` also returns its tokenizer. UsageError if it cannot be loaded or enforced.
    """
    return restore(load(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code).model)


def restore(model: nn.Module) -> nn.Module:
    """Put the selections of the model's config in force, and return the model; UsageError if they do not fit it.

    For models that were loaded without lazyneuron, with or without a head around the saved model.
    """
    spec = getattr(getattr(unwrap(model), "config", None), CONFIG_KEY, None)
    if not spec:
        return model
    try:
        enforce(model, _renamed(unwrap(model), spec))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"the config's lazyneuron entry does not fit the model ({first_line(error)})"
        raise UsageError(f"{what}: call enforce(model, selection) to find the MLPs again") from error
    return model


def _renamed(model: nn.Module, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The entries under this model's names: with a head around the saved model, or without it, a prefix differs."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    parameters = {clean_name(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    downs = [entry["site"]["down"] for entry in spec.values()]
    if prefix == "." or parameters.issuperset(downs):
        return dict(spec)
    adds_prefix = parameters.issuperset(prefix + down for down in downs)

    def rename(path: str) -> str:
        return prefix + path if adds_prefix else path.removeprefix(prefix)

    found = {rename(name): {**entry, "site": dict(entry["site"])} for name, entry in spec.items()}
    for entry in found.values():
        for holder, key in (
            (entry["site"], "up"),
            (entry["site"], "gate"),
            (entry["site"], "down"),
            (entry, "dropout"),
        ):
            if holder.get(key):
                holder[key] = rename(holder[key])
    return found
