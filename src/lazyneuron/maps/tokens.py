"""What the rows of an activation map are: real tokens or padding, and where in which sequence they stand."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The tokens of an activation map [B, S, F]: B sequences of S tokens, on the map's device.

    `is_real_BS` is False at padding (None: all tokens are real). `ids_BS` are the token ids that the model was called
    with, int64 (None: the model takes no ids, or they cannot be laid over this map).
    """

    is_real_BS: Tensor | None = None
    ids_BS: Tensor | None = None

    def select(self, h_BSF: Tensor) -> Tensor:
        """The maps of the real tokens, [T, F]."""
        return h_BSF.flatten(0, 1) if self.is_real_BS is None else h_BSF[self.is_real_BS]
