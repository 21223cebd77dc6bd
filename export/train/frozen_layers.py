"""What the first layers of a policy say of every step, computed once: training a head on it takes seconds.

Results are kept in a folder, a file for each question and pool under the hash of what was evaluated. So the same
command continues, and more samples cost only themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_tts.export.train.packing import Pack, collate


class FrozenLayers:
    """The hidden states of a policy's layers at the ends of steps, as the head of a truncated policy sees them."""

    def __init__(self, backbone: Any, depths: Sequence[int], cache: Path, name: str) -> None:
        """``depths``: after how many layers to look. ``name`` tells the policy from others in ``cache``."""
        self._backbone = backbone.eval()
        self._depths = tuple(depths)
        self._cache = cache
        self._name = name
        cache.mkdir(parents=True, exist_ok=True)

    def states(self, pack: Pack) -> NDArray[np.float16]:
        """(chunks, depths, hidden): each chunk's last token after each depth, divided by its root mean square."""
        asked = repr((self._name, self._depths, pack.chunks, pack.parents))
        path = self._cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.npy"
        if path.exists():
            return np.load(path)  # type: ignore[no-any-return]
        found = self._evaluate(pack)
        partial = path.with_suffix(".tmp.npy")
        np.save(partial, found)
        partial.replace(path)
        return found

    @torch.no_grad()
    def _evaluate(self, pack: Pack) -> NDArray[np.float16]:
        device = str(self._backbone.device)
        ids, positions, seen, ends = collate([pack], device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            out = self._backbone(
                input_ids=ids,
                attention_mask=seen.unsqueeze(1),
                position_ids=positions,
                use_cache=False,
                output_hidden_states=True,
            )
        # The last one is normed already, and norming it again changes nothing.
        at_ends = torch.stack([out.hidden_states[depth][0, ends].float() for depth in self._depths], dim=1)
        normed = at_ends * torch.rsqrt(at_ends.square().mean(-1, keepdim=True) + self._backbone.config.rms_norm_eps)
        return normed.half().cpu().numpy()
