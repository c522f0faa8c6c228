"""Decoding with transformers' Whisper: by its `generate`, or greedily without what that repeats.

`generate` looks up at each step which tokens are suppressed, and keeps books for searches that are
not asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers import WhisperForConditionalGeneration as Whisper

from cascade.asr.decoding import Decoding

FOLLOWED = {
    "_from_model_config",
    "alignment_heads",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_decoder_ids",
    "is_multilingual",
    "lang_to_id",
    "max_initial_timestamp_index",
    "max_length",
    "no_timestamps_token_id",
    "pad_token_id",
    "prev_sot_token_id",
    "return_timestamps",
    "suppress_tokens",
    "task_to_id",
    "transformers_version",
}
"""Settings that are followed here, or are of no effect on greedy decoding without time stamps."""


def is_plain(settings: GenerationConfig) -> bool:
    """Tell whether a model's settings ask for nothing that `greedy` does not do."""
    return settings.to_diff_dict().keys() <= FOLLOWED and type(settings.eos_token_id) is int


@torch.inference_mode()
def greedy(model: Whisper, encoded: Tensor, prompts: Tensor) -> tuple[Tensor, list[float]]:
    """Return the tokens of clips, and the mean log-probability of each clip's, its end among them.

    Shape: encoded (B, F, D), prompts (B, P) -> (B, tokens), padded with the end token
    """
    settings = model.generation_config
    end, room = settings.eos_token_id, model.config.max_target_positions - prompts.shape[1]
    banned = encoded.new_zeros(model.config.vocab_size, dtype=torch.float32)
    banned[settings.suppress_tokens or []] = -torch.inf
    first = banned.clone()
    first[settings.begin_suppress_tokens or []] = -torch.inf
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    running = torch.ones(len(encoded), dtype=torch.bool, device=encoded.device)
    total, count = torch.zeros_like(first[: len(encoded)]), torch.zeros_like(running, dtype=int)
    latest, written = prompts, list[Tensor]()
    for _ in range(min(settings.max_length, room)):
        states = model.model.decoder(
            input_ids=latest, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        ).last_hidden_state
        scores = model.proj_out(states[:, -1]).float() + (banned if written else first)
        best, tokens = scores.max(-1)
        total += torch.where(running, best - scores.logsumexp(-1), 0.0)
        count += running
        tokens = torch.where(running, tokens, end)
        written.append(tokens)
        running &= tokens != end
        if not running.any():
            break
        latest = tokens[:, None]
    return torch.stack(written, 1), (total / count).tolist()


def search(
    model: Whisper,
    features: Tensor,
    mask: Tensor | None,
    decoding: Decoding,
    temperature: float,
    long: bool,
    forced: dict[str, Any],
) -> tuple[Tensor, list[float | None]]:
    """Return tokens (B, T) and mean log-probabilities by `generate`, window by window where long.

    Shape: features (B, bands, frames), mask (B, frames)
    """
    confidence = Confidence(model.generation_config.eos_token_id)
    beams = 1 if temperature else decoding.beam_size
    options: dict[str, Any] = {"do_sample": False, "num_beams": beams}
    # The scores of beams come with those of all tokens, which take much memory
    if beams > 1 and decoding.logprob_threshold is not None and not long:
        options["output_scores"] = True
    if long and decoding.max_new_tokens:  # a largest length would grow by each window
        options["max_new_tokens"] = decoding.max_new_tokens
    if temperature:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0}
    out = model.generate(
        features,
        attention_mask=mask,
        return_timestamps=long,
        condition_on_prev_tokens=False,
        return_dict_in_generate=not long,
        output_logits=temperature > 0,
        force_unique_generate_call=not long,  # else a stray time stamp starts another window
        logits_processor=LogitsProcessorList([confidence]) if beams == 1 else None,
        **options,
        **forced,
    )
    tokens = out if long else out.sequences
    if temperature:  # one clip, that a guard has retried
        each = model.compute_transition_scores(tokens, out.logits, normalize_logits=True)
        return tokens, each.mean(1).tolist()
    return tokens, confidence.averages() if beams == 1 else scores_of(out, len(features))


def scores_of(out: Any, count: int) -> list[float | None]:
    """Return the mean log-probability of each best beam, where it was asked for."""
    scores = getattr(out, "sequences_scores", None)
    return [None] * count if scores is None else scores.tolist()


class Confidence(LogitsProcessor):
    """Changes nothing; sums up the log-probability of what greedy decoding picks."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.total: Tensor | None = None
        self.count: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best = scores.float().amax(-1) - scores.float().logsumexp(-1)
        running = input_ids[:, -1] != self.end
        if self.total is None or self.count is None:
            self.total, self.count = torch.zeros_like(best), torch.zeros_like(best)
        self.total += torch.where(running, best, 0.0)
        self.count += running
        return scores

    def averages(self) -> list[float | None]:
        """Return the mean log-probability of each clip's tokens, the end token among them."""
        assert self.total is not None
        assert self.count is not None
        return (self.total / self.count.clamp_min(1)).tolist()
