"""Calibrated thresholds are exact order statistics of the maps, padding left out."""

import pytest
import torch
from torch import Tensor, nn

from lazyneuron.enforce.calibrate import calibrate
from lazyneuron.enforce.enforce import enforce, release
from lazyneuron.enforce.selection import Threshold, TopK
from lazyneuron.errors import UsageError
from lazyneuron.measure import watch
from lazyneuron.sites import Site


class Given(nn.Module):
    """An MLP whose activation map is its input, to choose it freely."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


SITE = Site("", "up.weight", None, "down.weight", 4, 8, "gelu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("density", [0.001, 0.05, 0.37, 0.99])
def test_it_is_the_order_statistic(dtype, density):
    """Against a sort of all entries, over many orders of magnitude, in batches of odd sizes."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (3, 1, 50)]
    maps = [(h * 10 ** torch.randint(-3, 3, h.shape, generator=generator)).to(dtype) for h in maps]
    found = calibrate(Given().to(dtype), iter(maps), density, [SITE])
    ordered = torch.cat(maps).abs().flatten().sort(descending=True).values
    assert found == {"": Threshold(ordered[round(density * 432)].item())}


def test_models_have_the_density_afterwards(build):
    """On the data of the calibration, padded, as `watch` counts it; a regular expression chooses the sites."""
    model = build("llama").train()
    ids = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[i < n for i in range(9)] for n in (9, 4, 1, 7)]).long()
    batches = [{"input_ids": ids[rows], "attention_mask": mask[rows]} for rows in (slice(3), slice(3, 4))]
    found = calibrate(model, batches, 0.1)
    assert model.training
    assert len(found) == 2
    assert [*calibrate(model, batches, 0.1, r"layers\.1")] == [name for name in found if ".1." in name]
    first = next(iter(found))
    for name in found:  # one at a time: the others change what comes after
        enforce(model, {name: found[name]})
        with watch(model, statistics=["active"]) as probe:
            for batch in batches:
                model(**batch)
        total = 21 * 32
        assert probe.num_tokens[name] == 21
        assert round(probe.density[name] * total) == round(0.1 * total)
        release(model)
    enforce(model, found)
    with watch(model) as probe:
        for batch in batches:
            model(**batch)
    assert probe.density[first] == pytest.approx(0.1, abs=1 / 672)


def test_dropout_plays_no_part(stack, x):
    model = stack(0.5)
    assert calibrate(model.train(), [x], 0.2) == calibrate(model.eval(), [x], 0.2)


def test_ties_zeros_and_all():
    model = Given()
    h = torch.tensor([[2.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    assert calibrate(model, [h], 0.25, [SITE]) == {"": Threshold(2.0)}  # two of three equal ones cannot be had
    assert calibrate(model, [h], 0.5, [SITE]) == {"": Threshold(0.0)}
    assert calibrate(model, [h], 0.75, [SITE]) == {"": Threshold(0.0)}
    assert calibrate(model, [torch.arange(1.0, 9.0)[None]], 1.0, [SITE]) == {"": Threshold(0.0)}
    assert calibrate(model, [torch.arange(1.0, 9.0)[None]], 0.97, [SITE]) == {"": Threshold(0.0)}


def test_nan_counts_as_the_largest():
    h = torch.tensor([[torch.nan, -torch.inf, 3.0, 2.0, 1.0, 0.5, 0.25, 0.1]])
    assert calibrate(Given(), [h], 3 / 8, [SITE]) == {"": Threshold(2.0)}
    with pytest.raises(UsageError, match=r"site '': more than 12.50% of its entries are infinite or NaN"):
        calibrate(Given(), [h], 1 / 8, [SITE])


def test_refusals(stack, x):
    model = stack()
    with pytest.raises(ValueError, match="calibration needs 0 < density <= 1; got density=0"):
        calibrate(model, [x], 0)
    with pytest.raises(UsageError, match="there is no batch to calibrate on"):
        calibrate(model, [], 0.1)
    with pytest.raises(UsageError, match="site '': no token reached it"):
        calibrate(Given(), [torch.zeros(0, 8)], 0.1, [SITE])
    enforce(model, TopK(k=2), example_inputs=x)
    with pytest.raises(UsageError, match=r"release\(model\) first"):
        calibrate(model, [x], 0.1)


def test_a_model_that_does_not_repeat_itself_is_refused():
    class Fickle(Given):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x * 2.0 ** (8 * self.calls))

    with pytest.raises(UsageError, match="site '' had other maps in the second pass"):
        calibrate(Fickle(), [torch.randn(3, 8)], 0.5, [SITE])
