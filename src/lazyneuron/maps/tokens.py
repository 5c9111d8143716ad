"""What the rows of an activation map are: real tokens or padding, and where in which sequence they stand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The tokens of an activation map [B, S, F]: B rows of S tokens, on the map's device.

    `is_real_BS` is False at padding (None: all tokens are real). `ids_BS` are the token ids that the model was called
    with, int64 (None: the model takes no ids, or they cannot be laid over this map). Without `has_rows` the rows are
    not the sequences of the call, as at experts: which sequence a token belongs to is unknown.

    Found only where they are asked for: `position_BS` counts the real tokens before each one in its sequence, int64,
    and is -1 where it is unknown (None: 0 to S - 1). `is_pair_BS` is True where a token directly follows the one before
    it in its row and both are of one sequence (None: wherever both are real). `is_continued_B` is True in rows whose
    first real token directly follows the last one of an earlier call (None: nowhere). `past` holds what was put into
    `kept` at that call, row by row; `kept` is None where no call can follow.
    """

    is_real_BS: Tensor | None = None
    ids_BS: Tensor | None = None
    has_rows: bool = True
    position_BS: Tensor | None = None
    is_pair_BS: Tensor | None = None
    is_continued_B: Tensor | None = None
    past: Mapping[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] | None = None

    def select(self, h_BSF: Tensor) -> Tensor:
        """The maps of the real tokens, [T, F]."""
        return h_BSF.flatten(0, 1) if self.is_real_BS is None else h_BSF[self.is_real_BS]
