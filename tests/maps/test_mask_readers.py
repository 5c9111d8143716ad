"""Masks are read where they belong to a site's tokens, also by parts of the model that its caller does not name."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.maps.mask_readers import mask_reader, readers_around
from lazyneuron.maps.owners import Layout
from tests.maps.models import IDS, SMALL, build_t5, random

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors|enable_nested_tensor is True")
LENGTHS = torch.tensor([6, 2])
IS_PADDING = torch.arange(6) >= LENGTHS[:, None]


class Padded(nn.Module):
    """Makes the mask itself and hands it to an inner nn.TransformerEncoder."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first, self.embed = batch_first, nn.Embedding(50, 16)
        self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first), 2)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.embed(ids) if self.batch_first else self.embed(ids).transpose(0, 1)
        return self.inner(x, src_key_padding_mask=torch.arange(ids.shape[1]) >= lengths[:, None])


class Block(nn.Module):
    """A block of its own around nn.MultiheadAttention, with a second one that looks at other tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.cross = nn.MultiheadAttention(16, 2), nn.MultiheadAttention(16, 2)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor, others: Tensor, padded: Tensor, other_padding: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, key_padding_mask=padded)[0]
        x = x + self.cross(x, others, others, key_padding_mask=other_padding)[0]
        return x + self.down(self.up(x).relu())


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, others: Tensor, padded: Tensor, other_padding: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, others, padded, other_padding)
        return x


def counts(model: nn.Module, *calls: dict[str, Any], sites: Any = "auto") -> dict[str, Tensor]:
    with lazy.watch(model, sites) as probe, torch.no_grad():
        for call in calls:
            model(**call)
    return probe.state()


def same(padded: dict[str, Tensor], single: dict[str, Tensor]) -> None:
    assert padded.keys() == single.keys()
    for name, found in padded.items():
        assert torch.equal(found, single[name]), name


@pytest.mark.parametrize("size", [2, 6])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_mask_made_inside(batch_first: bool, size: int) -> None:
    """Also where the sequence is first, and where the batch is as large as the sequence is long."""
    model, ids = Padded(batch_first).eval(), torch.cat([IDS, IDS + 1, IDS - 1])[:size]
    lengths = torch.tensor([6, 2, 3, 4, 5, 1])[:size]
    rows = [{"ids": row[None, :n], "lengths": n[None]} for row, n in zip(ids, lengths, strict=True)]
    same(counts(model, {"ids": ids, "lengths": lengths}), counts(model, *rows))


def test_attention_of_ones_own() -> None:
    """The mask of its self-attention holds, not that of its attention to other tokens."""
    model, x, others = Blocks().eval(), random(6, 2, 16), random(6, 2, 16)
    padded = {
        "x": x,
        "others": others,
        "padded": IS_PADDING,
        "other_padding": torch.arange(6) >= torch.tensor([[4], [1]]),
    }
    rows = [
        {"x": x[:n, i : i + 1], "others": others[:m, i : i + 1], "padded": None, "other_padding": None}
        for i, (n, m) in enumerate(zip(LENGTHS, (4, 1), strict=True))
    ]
    same(counts(model, padded), counts(model, *rows))


@pytest.mark.parametrize("batch_first", [True, False])
def test_both_stacks_of_a_transformer(batch_first: bool) -> None:
    """Each stack has the mask of its own tokens; the decoder's memory has the encoder's."""
    torch.manual_seed(0)
    model = nn.Transformer(16, 2, 2, 2, 32, batch_first=batch_first).eval()
    source, target, ends = random(2, 6, 16), random(2, 6, 16)[:, 1:5], torch.tensor([3, 4])

    def call(rows: Any, n: int, m: int, **masks: Tensor) -> dict[str, Any]:
        src, tgt = source[rows, :n], target[rows, :m]
        src, tgt = (src, tgt) if batch_first else (src.transpose(0, 1), tgt.transpose(0, 1))
        return {"src": src, "tgt": tgt, **masks}

    masks = {"src_key_padding_mask": IS_PADDING, "memory_key_padding_mask": IS_PADDING}
    masks["tgt_key_padding_mask"] = torch.arange(4) >= ends[:, None]
    rows = [call(slice(i, i + 1), int(LENGTHS[i]), int(ends[i])) for i in range(2)]
    found = counts(model, call(slice(None), 6, 4, **masks))
    same(found, counts(model, *rows))
    assert {int(c[-2]) for name, c in found.items() if name.startswith("encoder")} == {8}
    assert {int(c[-2]) for name, c in found.items() if name.startswith("decoder")} == {7}


def test_a_wrapper_without_masks_of_its_own() -> None:
    """It takes a batch as a dictionary: the model inside is called with the mask, the labels and the tokens."""

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build_t5()

        def forward(self, batch: dict[str, Tensor]) -> Any:
            return self.net(**batch)

    labels = IDS.masked_fill(torch.arange(6) >= torch.tensor([[3], [5]]), -100)
    model = Wrapper()
    with lazy.watch(model) as probe:
        model({"input_ids": IDS, "attention_mask": (~IS_PADDING).long(), "labels": labels})
    assert list(probe.num_tokens.values()) == [8, 8, 8, 8]


def test_detr_has_a_mask_of_pixels() -> None:
    """The encoder's tokens are the feature map's; the decoder's are queries, which are all real."""
    backbone = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage4"])
    sizes = {f"{stack}_{what}": n for stack in ("encoder", "decoder") for what, n in _DETR.items()}
    config = hf.DetrConfig(backbone_config=backbone, backbone=None, d_model=16, num_queries=5, **sizes)
    mask = torch.ones(2, 128, 128).long()
    mask[1, :, 64:] = 0
    model = hf.DetrModel(config).eval()
    with lazy.watch(model) as probe:
        model(pixel_values=random(2, 3, 128, 128), pixel_mask=mask)
    assert {name.split(".")[0]: n for name, n in probe.num_tokens.items()} == {"encoder": 16 + 8, "decoder": 10}


_DETR = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}


def test_vilt_joins_text_and_patches() -> None:
    """Its encoder gets one mask for both: 8 words, 16 and 8 patches, and a class token each."""
    model = hf.ViltModel(hf.ViltConfig(**SMALL, intermediate_size=32, image_size=16, patch_size=4)).eval()
    pixels = torch.ones(2, 16, 16).long()
    pixels[1, :, 8:] = 0
    with lazy.watch(model) as probe:
        images = {"pixel_values": random(2, 3, 16, 16), "pixel_mask": pixels}
        model(input_ids=IDS, attention_mask=(~IS_PADDING).long(), **images)
    assert set(probe.num_tokens.values()) == {8 + 16 + 8 + 2}
    with lazy.watch(model) as whole:  # without padding the encoder gets no mask, and that is no reason to warn
        images["pixel_mask"] = torch.ones_like(pixels)
        model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **images)
    assert set(whole.num_tokens.values()) == {2 * (6 + 16 + 1)}


def test_which_modules_are_read() -> None:
    """A stack that takes masks, not its layers; the model itself is not among them."""
    model = hf.BertModel(hf.BertConfig(**SMALL, intermediate_size=32))
    layout, root = Layout(model), mask_reader("", model)
    (site, _) = lazy.find_sites(model, IDS)
    found, order = readers_around(layout, site, root)
    assert [reader.name for _, reader in found] == ["encoder"]
    assert order is None
    assert root.masks(site) == ["attention_mask"]
    assert root.read((IDS,), {"attention_mask": IDS, "position_ids": IDS}).keys() == {"input_ids", "attention_mask"}
