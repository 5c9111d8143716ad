"""What a sequence takes from one call to the next: the neurons of its last token, and its half of the data."""

import torch
from torch import Tensor

from lazyneuron.maps.tokens import Tokens


def across_calls(site: str, h_BSF: Tensor, tokens: Tokens) -> Tensor | None:
    """Neurons active at both of two neighbouring tokens that two calls hold, and at either, summed: int64 [2].

    The earlier token's neurons are those of the site's latest call, as bool [B, F]. None where no call was before.
    """
    if tokens.kept is None:
        return None
    rows_B, real_BS = torch.arange(len(h_BSF), device=h_BSF.device), tokens.is_real_BS
    first_B, last_B, found = 0 * rows_B, 0 * rows_B - 1, None
    if real_BS is not None:
        first_B, last_B = real_BS.int().argmax(1), real_BS.shape[1] - 1 - real_BS.flip(1).int().argmax(1)
    before_BF = tokens.past.get(f"{site}/active")
    last_BF = _active(h_BSF[rows_B, last_B])
    if before_BF is not None and tokens.is_continued_B is not None:
        before_BF = before_BF.to(h_BSF.device)
        first_BF, is_pair_B1 = _active(h_BSF[rows_B, first_B]), tokens.is_continued_B[:, None]
        either = ((first_BF | before_BF) & is_pair_B1).sum()
        found = torch.stack([(first_BF & before_BF & is_pair_B1).sum(), either])
        last_BF = last_BF if real_BS is None else torch.where(real_BS.any(1, keepdim=True), last_BF, before_BF)
    tokens.kept[f"{site}/active"] = last_BF
    return found


def _active(h: Tensor) -> Tensor:
    return (h != 0) & ~h.isnan()


def sequence_numbers(site: str, shape: torch.Size, tokens: Tokens, num_before: Tensor) -> tuple[Tensor, Tensor]:
    """The number of each token's sequence, [B, S], and how many sequences began; `num_before` began in earlier calls.

    A row with a real token that neither begins nor continues a known sequence counts as one that begins.
    """
    real_BS, on = tokens.is_real_BS, num_before.device
    real_BS = torch.ones(shape, dtype=torch.bool, device=on) if real_BS is None else real_BS
    begins_BS = real_BS & (real_BS.cumsum(1) == 1)
    past_B = tokens.past.get(f"{site}/number")
    is_continued_B = None if past_B is None else tokens.is_continued_B
    if is_continued_B is not None:
        begins_BS &= ~is_continued_B[:, None]
    if tokens.position_BS is not None:
        begins_BS |= tokens.position_BS == 0
    number_BS = num_before + begins_BS.flatten().cumsum(0).view(shape) - 1
    if past_B is not None:
        number_BS = torch.where(begins_BS.cumsum(1) > 0, number_BS, past_B.to(on)[:, None])
    if tokens.kept is not None and shape[1]:
        tokens.kept[f"{site}/number"] = number_BS[:, -1]
    return number_BS, begins_BS.sum()
