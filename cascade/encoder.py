"""Text encoders: texts become one vector each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cascade.ngrams import NgramEncoder
from speechtaxi.hub import from_hub, plain


class PretrainedTextEncoder(nn.Module):
    """A transformers text encoder, mean over the tokens of a text.

    Args:
        name: hub id or folder.
        config: an encoder's `config`: builds it without weights; the tokenizer still comes from the
            place that it names.
        max_tokens: longer texts are cut.

    Shape: B texts -> (B, D)
    """

    def __init__(
        self, name: str, *, config: dict[str, Any] | None = None, max_tokens: int = 256
    ) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        name = config["name"] if config else name
        if config is None:
            model = from_hub(AutoModel, name, dtype=torch.float32)
        else:
            settings, max_tokens = config["model"], config["max_tokens"]
            model = AutoModel.from_config(AutoConfig.for_model(**settings))
        self.tokenizer = from_hub(AutoTokenizer, name)
        self.config = {"kind": "transformers", "name": name, "max_tokens": max_tokens}
        self.config |= {"model": plain(model.config.to_dict())}
        self.model = model.get_encoder() if model.config.is_encoder_decoder else model
        self.dim: int = model.config.hidden_size
        self.max_tokens = max_tokens

    def forward(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.model.device)
        hidden = self.model(**tokens).last_hidden_state  # (batch, tokens, size)
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)


def open_text_encoder(
    name: str = "ngrams", *, config: dict[str, Any] | None = None
) -> NgramEncoder | PretrainedTextEncoder:
    """Return a text encoder by name, or built from the `config` of one that was saved.

    Args:
        name: "ngrams", or a hub id or local folder of a transformers text encoder.
        config: an encoder's `config`: builds it without weights.

    Raises:
        InputError: there is no such encoder, or it cannot be reached.
    """
    if config is not None and config["kind"] == "ngrams":
        return NgramEncoder(**{k: v for k, v in config.items() if k != "kind"})
    if config is None and name == "ngrams":
        return NgramEncoder()
    return PretrainedTextEncoder(name, config=config)
