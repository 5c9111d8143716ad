"""Each weight has the owner whose input and output are those of the whole projection."""

import torch
from torch import Tensor, nn

from lazyneuron.maps.owners import Layout, numberless
from tests.maps.models import MLP, Stack


def test_a_plain_weight_belongs_to_its_linear():
    model = Stack()
    assert Layout(model).owners("a.w2.weight") == ([model.a.w2], False)


def test_a_tied_weight_has_an_owner_at_each_place():
    model = Stack()
    model.b.w2.weight = model.a.w2.weight
    layout = Layout(model)
    assert layout.owners("a.w2.weight") == layout.owners("b.w2.weight") == ([model.a.w2, model.b.w2], False)


def test_a_shared_module_is_one_owner_under_its_first_name():
    model = nn.ModuleDict({"first": MLP(), "second": nn.Identity()})
    model["second"] = model["first"]
    layout = Layout(model)
    assert layout.owners("second.w2.weight") == ([model["first"].w2], False)
    assert layout.name_of[id(model["first"])] == "first"


def test_a_parametrized_weight_belongs_to_the_module_that_computes_it():
    model = MLP()
    torch.nn.utils.parametrizations.weight_norm(model.w2)
    assert Layout(model).owners("w2.parametrizations.weight.original1") == ([model.w2], False)


def test_an_adapter_owns_the_weight_of_its_base_layer():
    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer, self.a = base, nn.Linear(12, 2)

        def forward(self, h: Tensor) -> Tensor:
            return self.base_layer(h)

    model = MLP()
    linear = model.w2
    model.w2 = Adapter(Adapter(linear))
    assert Layout(model).owners("w2.base_layer.base_layer.weight") == ([model.w2], False)


def test_a_weight_beside_others_is_bare():
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.down = nn.Parameter(torch.ones(2, 3, 4)), nn.Parameter(torch.ones(2, 4, 3))

    model = nn.Sequential(Experts())
    assert Layout(model).owners("0.down") == ([model[0]], True)


def test_wrappers_are_looked_through():
    model = Stack()
    layout = Layout(nn.DataParallel(torch.compile(model, backend="eager")))
    assert layout.owners("a.w2.weight") == ([model.a.w2], False)
    assert layout.modules.keys() >= {"a", "a.w2"}


def test_numbers_do_not_matter_for_the_same_part_of_another_layer():
    assert numberless("layers.10.mlp.w2") == numberless("layers.3.mlp.w2") == "layers.*.mlp.w*"
