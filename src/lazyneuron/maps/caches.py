"""Recognise the cache that a call of a model continues, and whether it is still as an earlier call left it."""

import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_NAMES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states", "past", "layer_past")


def cache_in(values: Any) -> Any:
    """The cache among the inputs or outputs of a call; None without one."""
    if isinstance(values, Mapping):
        return next((values[name] for name in _NAMES if values.get(name) is not None), None)
    if isinstance(values, tuple | list):
        return next((value for value in values[1:] if hasattr(value, "get_seq_length") or _is_nest(value)), None)
    return next((found for name in _NAMES if (found := getattr(values, name, None)) is not None), None)


def cached_length(cache: Any) -> int | Tensor | None:
    """Tokens that a cache holds, padding included; None where it does not say."""
    if cache is None:
        return 0
    try:
        length = cache.get_seq_length()
    except (AttributeError, TypeError, ValueError):  # no such method, or layers that have no length
        is_new = hasattr(cache, "layers") or isinstance(cache, tuple | list | Mapping)
        return 0 if is_new and first_tensor(cache) is None else None
    return length.clone() if isinstance(length, Tensor) else length


def first_tensor(cache: Any) -> Tensor | None:
    """A tensor of the cache, which is replaced or written to whenever the cache changes."""
    if isinstance(cache, Tensor):
        return cache
    if isinstance(cache, Mapping):
        parts = cache.values()
    elif isinstance(cache, tuple | list):
        parts = cache
    else:
        cache = getattr(cache, "self_attention_cache", cache)
        names = ("keys", "conv_states", "recurrent_states")
        parts = (getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in names)
    found = (first_tensor(part) for part in parts if isinstance(part, Tensor | Mapping | tuple | list))
    return next((tensor for tensor in found if tensor is not None), None)


def _is_nest(value: Any) -> bool:
    return isinstance(value, tuple | list) and first_tensor(value) is not None


class Mark:
    """The state of a cache at one moment: `holds` says whether it is unchanged, as far as that can be seen."""

    def __init__(self, cache: Any) -> None:
        tensor = first_tensor(cache)
        self._tensor = (lambda: None) if tensor is None else weakref.ref(tensor)
        self._version, self._length = _version(tensor), cached_length(cache)

    def holds(self, cache: Any) -> bool | Tensor:
        """Without waiting for a device: a tensor where the length is one."""
        tensor, length = first_tensor(cache), cached_length(cache)
        if tensor is None or self._tensor() is not tensor or self._version != _version(tensor):
            return False
        return length is self._length or length == self._length


class ByCache:
    """Values by cache, as long as the cache lives."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Mark, Any]] = {}

    def __setitem__(self, cache: Any, value: Any) -> None:
        owner = _owner(cache)
        if owner is not None:
            key, entries = id(owner), self._entries
            entries[key] = weakref.ref(owner, lambda _: entries.pop(key, None)), Mark(cache), value

    def get(self, cache: Any) -> tuple[Any, bool | Tensor]:
        """The value of the cache, and whether the cache is unchanged since it was set; (None, False) without one."""
        owner = _owner(cache)
        entry = self._entries.get(id(owner))
        if owner is None or entry is None or entry[0]() is not owner:
            return None, False
        return entry[2], entry[1].holds(cache)

    def clear(self) -> None:
        self._entries.clear()


def _owner(cache: Any) -> Any:
    """What lives as long as the cache: tuples, lists and dictionaries cannot be referred to weakly, tensors can."""
    return first_tensor(cache) if isinstance(cache, tuple | list | dict) else cache


def _version(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.is_inference() else tensor._version
