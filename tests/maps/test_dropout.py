"""The dropout between the activation and the down projection is found, and only that."""

import pytest
import torch
from torch import Tensor, nn

from lazyneuron.enforce.enforce import enforce, enforced
from lazyneuron.enforce.selection import TopK
from lazyneuron.enforce.verify import verify
from lazyneuron.errors import UsageError
from lazyneuron.kernels.topk import topk
from lazyneuron.measure import watch
from lazyneuron.sites import Site, find_sites
from tests.enforce.models import Alone


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("given", [False, True])
def test_selection_comes_before_the_dropout(stack, x, p, given):
    """In training the k are chosen among all neurons, not among those that the dropout left."""
    model = stack(p).train()
    torch.manual_seed(3)
    y = x
    for mlp in model:
        y = y + mlp.down(mlp.drop(topk(mlp.act(mlp.up(y)), 4)))
    sites = find_sites(model, x) if given else "auto"
    enforce(model, TopK(k=4), sites, example_inputs=x)
    assert {entry["dropout"] for entry in enforced(model).values()} == {"0.drop", "1.drop"}
    torch.manual_seed(3)
    assert torch.equal(model(x), y)
    with watch(model) as probe:
        model(x)
    assert max(probe.num_active.values()) <= 4
    assert min(probe.num_active.values()) > 3  # those that fire before the dropout
    assert set(verify(model, x).values()) == {15}


def test_a_dropout_of_other_widths_is_left_alone(x):
    """One module may drop both the map and the output of the MLP."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down, self.drop = nn.Linear(8, 12), nn.Linear(12, 8), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.drop(self.down(self.drop(self.up(x).relu())))

    model = Both().train()
    torch.manual_seed(1)
    expected = x + model.drop(model.down(model.drop(topk(model.up(x).relu(), 2))))
    enforce(model, TopK(k=2), example_inputs=x)
    torch.manual_seed(1)
    assert torch.equal(model(x), expected)


def test_a_dropout_before_an_activation_in_place_is_not_before_down(x):
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.drop, self.act, self.down = nn.Linear(8, 12), nn.Dropout(0.5), nn.ReLU(True), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.act(self.drop(self.up(x))))

    model = InPlace().train()
    torch.manual_seed(1)
    expected = x + model.down(topk(model.drop(model.up(x)).relu(), 2))
    enforce(model, TopK(k=2), example_inputs=x)
    torch.manual_seed(1)
    assert torch.equal(model(x), expected)


def test_a_dropout_that_serves_others_is_refused(x):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.drop = Alone(), Alone(), nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            for mlp in (self.a, self.b):
                x = x + mlp.down(self.drop(mlp.up(x).relu()))
            return x

    model = Shared()
    sites = [Site("", "a.up.weight", None, "a.down.weight", 8, 12, "relu")]
    with pytest.raises(UsageError, match=r"site '': drop drops more than this map"):
        enforce(model, TopK(k=2), sites, x)
