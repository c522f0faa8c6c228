"""Recognition against openai-whisper, transformers and faster-whisper: same weights, same clips.

    python benchmarks/recognition.py --output runs/recognition

Random weights in the sizes of Whisper tiny (39M) are saved as openai, transformers and CTranslate2
have them. Every way transcribes the same arrays greedily, in windows of 30 s, told the language,
without time stamps, on one thread; the decoder's positions are cut to 64, so that every text is 32
tokens long. The ways take turns; seconds are the process's CPU time of the cheapest round, and
equal is the share of clips whose text is the same, to the letter: against openai-whisper, and
against faster-whisper in the same type. faster-whisper ends the mel of a short clip in zeros where
the others' ends in silence, so that its texts differ; texts are compared with what it writes of
clips that are followed by silence up to 30 s. Peak memory is that of a process that does nothing
else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from memory import peak_mib
from noise import clips

from speechtaxi import audio

Way = Callable[[list[np.ndarray]], list[str]]
REFERENCE = "openai-whisper"
SILENCE = "faster-whisper in silence"


def save_openai(path: Path) -> None:
    """Write a random Whisper tiny as openai has it, whose texts vary and depend on the clip."""
    from whisper.model import ModelDimensions, Whisper
    from whisper.tokenizer import get_tokenizer

    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 384, 6, 4, 51865, 64, 384, 6, 4))
    scales = {"query": 6, "key": 6, "value": 3, "out": 3, "mlp.0": 3, "mlp.2": 3}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight *= scales.get(re.sub(r".*attn\.|.*(?=mlp)|\.weight$", "", name), 1)
        model.decoder.positional_embedding.normal_()
        model.decoder.ln.weight.normal_()  # else a token is its own best successor
        model.decoder.token_embedding.weight[get_tokenizer(True).eot :] *= 0.01  # never written
    torch.save({"dims": vars(model.dims), "model_state_dict": model.state_dict()}, path)


def save_transformers(source: Path, folder: Path) -> None:
    """Write openai's weights, vocabulary and rules of decoding as transformers has them."""
    import whisper
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )
    from transformers.convert_slow_tokenizer import TikTokenConverter

    names = {
        "blocks": "layers", "attn": "self_attn", "attn_ln": "self_attn_layer_norm",
        "cross_attn": "encoder_attn", "cross_attn_ln": "encoder_attn_layer_norm",
        "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm", "query": "q_proj",
        "key": "k_proj", "value": "v_proj", "out": "out_proj", "token_embedding": "embed_tokens",
        "positional_embedding": "embed_positions.weight", "ln_post": "layer_norm",
        "ln": "layer_norm",
    }  # fmt: skip
    state = torch.load(source, weights_only=True)["model_state_dict"]
    pattern = re.compile(r"\bmlp\.\d|\b[a-z_]+\b")
    state = {
        f"model.{pattern.sub(lambda part: names.get(part[0], part[0]), name)}": weight
        for name, weight in state.items()
    }
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model = WhisperForConditionalGeneration(WhisperConfig(max_target_positions=64))
    model.load_state_dict(state)
    openai = whisper.tokenizer.get_tokenizer(True, task="transcribe")
    specials = sorted(openai.special_tokens, key=openai.special_tokens.__getitem__)
    spoken = (openai.transcribe, openai.translate, openai.sot, openai.sot_prev, openai.sot_lm)
    model.generation_config = GenerationConfig(
        bos_token_id=openai.eot,
        eos_token_id=openai.eot,
        pad_token_id=openai.eot,
        decoder_start_token_id=openai.sot,
        no_timestamps_token_id=openai.no_timestamps,
        is_multilingual=True,
        lang_to_id={
            f"<|{code}|>": openai.to_language_token(code)
            for code in whisper.tokenizer.LANGUAGES
            if code != "yue"
        },
        task_to_id={"translate": openai.translate, "transcribe": openai.transcribe},
        suppress_tokens=sorted({*openai.non_speech_tokens, *spoken, openai.no_speech}),
        begin_suppress_tokens=[*openai.encode(" "), openai.eot],
        max_length=64,
    )
    model.save_pretrained(folder)
    ranks = Path(whisper.__file__).parent / "assets" / "multilingual.tiktoken"
    vocabulary, merges = TikTokenConverter().extract_vocab_merges_from_model(str(ranks))
    times = [name for name in specials if name[2].isdigit()]
    tokenizer = WhisperTokenizer(
        vocabulary,
        merges,
        pad_token="<|endoftext|>",
        additional_special_tokens=[name for name in specials[1:] if name not in times],
    )
    tokenizer.add_tokens(times)
    assert tokenizer.convert_tokens_to_ids(specials) == sorted(openai.special_tokens.values())
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)


def save(folder: Path) -> None:
    """Write the three forms of one random model, where they are not yet."""
    if (folder / "ctranslate2").exists():
        return
    from ctranslate2.converters import TransformersConverter

    folder.mkdir(parents=True, exist_ok=True)
    save_openai(folder / "openai.pt")
    save_transformers(folder / "openai.pt", folder / "transformers")
    files = ["tokenizer.json", "preprocessor_config.json"]
    converter = TransformersConverter(str(folder / "transformers"), copy_files=files)
    converter.convert(str(folder / "ctranslate2"))


def openai(folder: Path) -> Way:
    """openai-whisper, window by window, as its README has it."""
    import whisper

    model = whisper.load_model(str(folder / "openai.pt"))
    options = whisper.DecodingOptions(language="en", fp16=False, without_timestamps=True)

    def text(wave: np.ndarray) -> str:
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(wave))
        return whisper.decode(model, mel, options).text

    return lambda waves: [text(wave) for wave in waves]


def piped(folder: Path, size: int) -> Way:
    """transformers' pipeline."""
    from transformers import pipeline

    pipe = pipeline("automatic-speech-recognition", str(folder / "transformers"), device="cpu")
    options = {"language": "en", "task": "transcribe", "max_new_tokens": 32, "num_beams": 1}

    def way(waves: list[np.ndarray]) -> list[str]:
        inputs = [{"raw": wave, "sampling_rate": audio.SAMPLE_RATE} for wave in waves]
        return [t["text"] for t in pipe(inputs, batch_size=size, generate_kwargs=options)]

    return way


def faster(folder: Path, kind: str, silence: bool = False) -> Way:
    """faster-whisper as its users call it, without its beams and fallbacks."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder / "ctranslate2"), "cpu", compute_type=kind, cpu_threads=1)
    # Half of the prompt's 4 tokens and these is written (OpenNMT/CTranslate2, issue 1856): 32
    options = {"language": "en", "beam_size": 1, "temperature": 0.0, "max_new_tokens": 60}
    window = 30 * audio.SAMPLE_RATE

    def way(waves: list[np.ndarray]) -> list[str]:
        if silence:
            waves = [np.pad(wave, (0, window - len(wave))) for wave in waves]
        told = (model.transcribe(w, without_timestamps=True, **options)[0] for w in waves)
        return ["".join(part.text for part in parts) for parts in told]

    return way


def ours(spec: str, size: int = 4, dtype: str = "float32") -> Way:
    """Our recognisers, in batches."""
    from cascade import open_recognizer
    from cascade.asr.decoding import Decoding

    recognizer = open_recognizer(spec, dtype=dtype, decoding=Decoding(max_new_tokens=32))

    def way(waves: list[np.ndarray]) -> list[str]:
        batches = (waves[start : start + size] for start in range(0, len(waves), size))
        return [t.text for batch in batches for t in recognizer.transcribe(batch, "eng")]

    return way


def ways(folder: Path) -> dict[str, Callable[[], Way]]:
    """Return how to open each way, by name."""
    weights, hub = f"whisper:{folder}/openai.pt", str(folder / "transformers")
    converted = folder / "ctranslate2"
    return {
        REFERENCE: lambda: openai(folder),
        "transformers' pipeline, batch size 1": lambda: piped(folder, 1),
        "transformers' pipeline, batch size 4": lambda: piped(folder, 4),
        "faster-whisper, float32": lambda: faster(folder, "float32"),
        f"{SILENCE}, float32": lambda: faster(folder, "float32", silence=True),
        "faster-whisper, int8": lambda: faster(folder, "int8"),
        f"{SILENCE}, int8": lambda: faster(folder, "int8", silence=True),
        "speechtaxi, openai-whisper": lambda: ours(weights),
        "speechtaxi, transformers": lambda: ours(hub),
        "speechtaxi, transformers, one by one": lambda: ours(hub, 1),
        "speechtaxi, transformers, batches of 8": lambda: ours(hub, 8),
        "speechtaxi, transformers, bfloat16": lambda: ours(hub, dtype="bfloat16"),
        "speechtaxi, faster-whisper, float32": lambda: ours(f"faster-whisper:{converted}"),
        "speechtaxi, faster-whisper, int8": lambda: ours(f"faster-whisper:{converted}", 4, "int8"),
    }


def main() -> None:
    """Print a row for each way."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of clips and weights")
    p.add_argument("--clips", type=int, default=8)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--only", help="regular expression of ways beside openai-whisper", default="")
    p.add_argument("--memory", action="store_true", help="measure peak memory too")
    p.add_argument("--way", help="run this way alone and print its peak memory as JSON")
    args = p.parse_args()
    torch.set_num_threads(1)
    folder = args.output / "clips"
    if args.way:
        ways(args.output)[args.way]()([audio.load(path) for path in sorted(folder.iterdir())])
        print(json.dumps(peak_mib()))
        return
    save(args.output)
    waves = [audio.load(path) for path in clips(folder, args.clips)]
    opened = {
        name: way()
        for name, way in ways(args.output).items()
        if name == REFERENCE or re.search(args.only, name)
    }
    for way in opened.values():
        way(waves[:1])  # what a first call sets up
    spent = dict.fromkeys(opened, np.inf)
    texts: dict[str, list[str]] = {}
    for _ in range(args.rounds):
        for name, way in opened.items():
            started = time.process_time()
            texts[name] = [text.strip() for text in way(waves)]
            spent[name] = min(spent[name], time.process_time() - started)
    seconds = sum(map(len, waves)) / audio.SAMPLE_RATE
    print(f"{len(waves)} clips, {seconds:.0f} s of audio, {len(set(texts[REFERENCE]))} texts\n")
    print("| | CPU s per audio s | ratio | equal | to faster-whisper | equal | peak MiB |")
    print("|---" * 7 + "|")
    for name in opened:
        peak = "-"
        if args.memory:
            command = [sys.executable, __file__, "--output", args.output, "--way", name]
            alone = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            peak = f"{json.loads(alone.stdout.splitlines()[-1]):,.0f}"
        kind = name.rpartition(", ")[2]
        peers = [(REFERENCE, REFERENCE), (f"faster-whisper, {kind}", f"{SILENCE}, {kind}")]
        cells = [f"{spent[name] / seconds:.3f}"]
        for cost, text in peers if "faster-whisper" in name else peers[:1]:
            equal = np.mean([a == b for a, b in zip(texts[name], texts[text], strict=True)])
            cells += [f"{spent[name] / spent[cost]:.2f}", f"{equal:.0%}"]
        cells += ["-"] * (5 - len(cells))
        print(f"| {' | '.join([name, *cells, peak])} |", flush=True)


if __name__ == "__main__":
    main()
