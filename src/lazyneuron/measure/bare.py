"""Down projections without a module of their own: the products with their weights are seen as they run."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from lazyneuron.sites import Site, is_tracing

_PRODUCTS = {"linear", "matmul", "__matmul__", "mm", "bmm", "grouped_mm", "_grouped_mm", "grouped_mm_fallback"}


class BareWeights(TorchFunctionMode):
    """Sees the products with down weights that no module of their own holds (3-D experts, functional MLPs)."""

    def __init__(self, bare: list[tuple[Tensor, Site]], count: Callable[[Site, Tensor], None]) -> None:
        super().__init__()
        self.bare = bare
        self.names = [site.name for _, site in bare]
        self.count = count
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _PRODUCTS and len(args) >= 2 and not is_tracing():
            x, w = args[:2]
            storage = w.untyped_storage().data_ptr()
            for down, site in self.bare:
                if storage == down.untyped_storage().data_ptr() and x.shape[-1] == site.d_ff:
                    self.seen.add(site.name)
                    self.count(site, x)
        return func(*args, **(kwargs or {}))
