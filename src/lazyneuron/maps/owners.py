"""Which module owns a weight: the one answer for watching, enforcing, exploiting and swapping activations."""

import re

from torch import Tensor, nn

from lazyneuron.sites import clean_name, unwrap


class Layout:
    """The modules and parameters of a model by clean name, inside any wrappers."""

    def __init__(self, model: nn.Module) -> None:
        root = unwrap(model)
        self.modules = {clean_name(name): module for name, module in root.named_modules(remove_duplicate=False)}
        self.parameters = {clean_name(name): p for name, p in root.named_parameters(remove_duplicate=False)}
        self.name_of: dict[int, str] = {}
        self._holders: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            if self.name_of.setdefault(id(module), name) == name:
                for weight in module._parameters.values():
                    self._holders.setdefault(id(weight), []).append(name)

    def owners(self, parameter: str) -> tuple[list[nn.Module], bool]:
        """The modules that multiply by a weight, and whether the weight is bare.

        A tied weight has several owners. A weight in a `base_layer` belongs to the adapter around it (LoRA), whose
        input and output are those of the whole projection. A weight is bare if its module is no linear layer (3-D
        experts, a functional MLP), so that the module's input is not the product's.
        """
        path, parametrized, _ = parameter.partition(".parametrizations.")
        if parametrized:
            return [self.modules[path]], False
        names = self._holders[id(self.parameters[parameter])]
        owners = [self.modules[name] for name in names]
        if not all({"weight"} <= owner._parameters.keys() <= {"weight", "bias"} for owner in owners):
            return owners, True
        return [self.modules[re.sub(r"(\.base_layer)+$", "", name)] for name in names], False

    def around(self, weight: Tensor) -> list[nn.Module]:
        """The modules around one that holds a weight, from the outside in, without the model: itself if it has none."""
        found: list[nn.Module] = []
        for name in self._holders[id(weight)]:
            path = name.split(".")
            found += [self.modules[".".join(path[:end])] for end in range(1, max(len(path), 2))]
        return found


def numberless(name: str) -> str:
    """A module or site name with every number replaced by "*": equal for the same part of different layers."""
    return re.sub(r"\d+", "*", name)
