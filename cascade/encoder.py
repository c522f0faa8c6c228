"""Text encoders: texts become one vector each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from cascade.ngrams import NgramEncoder
from cascade.tfidf import TfidfEncoder
from speechtaxi.encoder import SpeechEncoder
from speechtaxi.encoder.lora import add_lora, lora, merge_lora
from speechtaxi.errors import InputError
from speechtaxi.hub import first_line, from_hub, plain, weights_from_hub

DECODERS = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3")
"""Language models that are read in both directions here, as LLM2Vec does."""


class PretrainedTextEncoder(nn.Module):
    """A transformers text encoder, mean over the tokens of a text, special ones included.

    A decoder's tokens attend to those after them too (LLM2Vec, BehnamGhader et al. 2024, arXiv
    2404.05961): its id is that of an adapter over the decoder, or of the decoder itself.

    Args:
        name: hub id or folder, of a model or of a peft adapter that names its model.
        adapters: further peft adapters, by hub id or folder, merged into the weights in this order.
        config: an encoder's `config`: builds it without weights; the tokenizer still comes from the
            place that it names.
        max_tokens: longer texts are cut, to less where the model holds less.

    Shape: B texts -> (B, D)
    """

    freeze = SpeechEncoder.freeze

    def __init__(
        self,
        name: str,
        *,
        adapters: Sequence[str] = (),
        config: dict[str, Any] | None = None,
        max_tokens: int = 256,
    ) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        name = config["name"] if config else name
        if config is None:
            model = _load(name)
            for adapter in adapters:
                model = _merge(model, adapter)
        else:
            settings, max_tokens = config["model"], config["max_tokens"]
            model = AutoModel.from_config(AutoConfig.for_model(**settings))
        if model.config.model_type == "canine":
            raise InputError(
                f"{name} is a canine model, whose convolutions hear the padding: what it makes of "
                "a text would depend on the batch; use google/byt5-small"
            )
        self.tokenizer = _load_tokenizer(name)
        self.config = {"kind": "transformers", "name": name, "max_tokens": max_tokens}
        self.config |= {"model": plain(model.config.to_dict())}
        self.model = model.get_encoder() if model.config.is_encoder_decoder else model
        if hasattr(self.model, "pooler"):
            self.model.pooler = None  # of no use to a mean over tokens
        self.dim: int = model.config.hidden_size
        self.max_tokens = min(max_tokens, self.tokenizer.model_max_length)
        if config and "lora" in config:
            self.add_lora(config["lora"])

    def add_lora(self, options: dict[str, Any]) -> None:
        """Train small matrices beside the layers' own, as in speech encoders."""
        settings = lora(options)
        add_lora(self.model, self.parts()[1], self.model.config.model_type, settings)
        self.config["lora"] = asdict(settings)

    def merge_lora(self) -> None:
        """Add what LoRA has learned to the layers' own matrices; without LoRA, do nothing."""
        if self.config.pop("lora", None):
            merge_lora(self.model)

    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        """Return the embeddings and the layers, lowest first."""
        front = getattr(self.model, "embeddings", None) or self.model.get_input_embeddings()
        lists = [part for part in self.model.modules() if isinstance(part, nn.ModuleList)]
        return front, list(max(lists, key=len))

    def forward(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.model.device)
        hidden = self.model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).last_hidden_state  # (batch, tokens, size)
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(f"{prefix}model.pooler.")]:
            del state_dict[key]  # models were saved with it once
        super()._load_from_state_dict(state_dict, prefix, *args)


def open_text_encoder(
    name: str = "ngrams",
    *,
    adapters: Sequence[str] = (),
    config: dict[str, Any] | None = None,
    max_tokens: int = 256,
    freeze: str = "none",
    lora: dict[str, Any] | None = None,
) -> NgramEncoder | PretrainedTextEncoder:
    """Return a text encoder by name, or built from the `config` of one that was saved.

    Args:
        name: "ngrams", or a hub id or local folder of a transformers text encoder.
        adapters, max_tokens: see `PretrainedTextEncoder`.
        config: an encoder's `config`: builds it without weights; it knows its LoRA already.
        freeze, lora: see `e2e.SpeechClassifier`.

    Raises:
        InputError: there is no such encoder, it cannot be reached, or it is not for such an option.
    """
    if config is None and name == "tfidf":
        raise InputError("TF-IDF is solved, not trained: use -c cascade_tfidf (TfidfClassifier)")
    kind = config["kind"] if config else name
    if kind in ("ngrams", "tfidf"):
        if adapters or lora or freeze != "none":
            raise InputError(f"adapters, lora and freeze are for pretrained encoders, not {kind}")
        settings = {k: v for k, v in (config or {}).items() if k != "kind"}
        return (TfidfEncoder if kind == "tfidf" else NgramEncoder)(**settings)
    encoder = PretrainedTextEncoder(name, adapters=adapters, config=config, max_tokens=max_tokens)
    if lora is not None and config is None:
        encoder.add_lora(lora)
    encoder.freeze(freeze)
    return encoder


def _load(name: str) -> Any:
    """Return a model, or the model that an adapter names with the adapter merged into it."""
    from transformers import AutoConfig, AutoModel

    if _is_adapter(name):
        return _merge(_load(_peft(name).base_model_name_or_path), name)
    config = from_hub(AutoConfig, name)
    if config.model_type in DECODERS:
        config.is_causal = config.use_cache = False
    return weights_from_hub(AutoModel, name, spare="pooler", config=config, dtype=torch.float32)


def _merge(model: Any, adapter: str) -> Any:
    """Return a model with a peft adapter's update added to its weights."""
    _peft(adapter)
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what peft asks of transformers
        # peft only warns where an adapter brings no weights for layers that it is to change
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        except (OSError, ValueError, RuntimeError, UserWarning) as error:
            raise InputError(
                f"the adapter {adapter} does not fit the encoder: {first_line(error)}"
            ) from error
    return merged.requires_grad_(True)  # peft had frozen it


def _is_adapter(name: str) -> bool:
    from transformers.utils import find_adapter_config_file

    try:
        return find_adapter_config_file(name) is not None
    except OSError:  # there is no such place, which is told when the model is loaded
        return False


def _peft(adapter: str) -> Any:
    """Return an adapter's configuration."""
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise InputError(f"{adapter} is an adapter: pip install 'speechtaxi[lora]'") from error
    return from_hub(PeftConfig, adapter)


def _load_tokenizer(name: str) -> Any:
    """Return a tokenizer that pads on the right, with the token for the end where it has none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = from_hub(AutoTokenizer, name)
    except InputError as error:
        if missing := [p for p in ("sentencepiece", "google.protobuf") if not _installed(p)]:
            raise InputError(
                f"cannot load the tokenizer of {name}: many need {' and '.join(missing)}; "
                "pip install sentencepiece protobuf"
            ) from error
        raise
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
