"""Hugging Face models that were saved with a selection in force, loaded with it in force again."""

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
    """The model called `name`, as `lazyneuron.load.models.load` takes it, with the selections it was saved with.

    `enforce` before `save_pretrained` is what writes them to its config.json. A model without any is returned as it
    is. It comes in eval mode; `load` has its tokenizer. UsageError for what cannot be loaded, or enforced on what was.
    """
    return restore(load(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code).model)


def restore(model: nn.Module) -> nn.Module:
    """The same model, with the selections in force that its config tells; UsageError if they do not fit it.

    For models that were loaded without lazyneuron. Names fit with and without a head around the saved model.
    """
    spec = getattr(getattr(unwrap(model), "config", None), CONFIG_KEY, None)
    if not spec:
        return model
    try:
        enforce(model, _renamed(unwrap(model), spec))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        mend = "enforce(model, selection) finds the MLPs anew"
        why = first_line(error)
        raise UsageError(f"what the config says of lazyneuron does not fit the model ({why}): {mend}") from error
    return model


def _renamed(model: nn.Module, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The entries by the names that this model has: a base model inside it, or the one it was inside, adds a prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    parameters = {clean_name(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    downs = [entry["site"]["down"] for entry in spec.values()]
    if prefix == "." or parameters.issuperset(downs):
        return dict(spec)
    if parameters.issuperset(prefix + down for down in downs):
        return {prefix + name: _mapped(entry, lambda path: prefix + path) for name, entry in spec.items()}
    return {
        name.removeprefix(prefix): _mapped(entry, lambda path: path.removeprefix(prefix))
        for name, entry in spec.items()
    }


def _mapped(entry: Mapping[str, Any], rename: Any) -> dict[str, Any]:
    site = {
        key: rename(value) if key in ("up", "gate", "down") and value else value for key, value in entry["site"].items()
    }
    dropout = {"dropout": rename(entry["dropout"])} if "dropout" in entry else {}
    return {**entry, "site": site, **dropout}
