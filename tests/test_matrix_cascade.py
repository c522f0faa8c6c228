"""Every config of the cascade, with tiny random models of the real classes in the hub's layout.

None is shipped untried: a config without its models here fails. Each is fitted as its file says
(only names of models become paths), broken off and resumed, exported, and classifies.
"""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
import yaml
from test_cascade_ctc import ZERO_SHOT, build, mms, save  # noqa: F401 - a fixture
from test_cascade_encoder import everywhere, save_llm2vec
from test_cascade_seamless import folder as seamless  # noqa: F401 - a fixture
from test_cascade_whisper import openai, save_transformers  # noqa: F401 - a fixture
from test_train import Interrupted

import cascade
import speechtaxi
from cascade.encoder import open_text_encoder
from speechtaxi import checkpoint
from speechtaxi.batch import collate
from speechtaxi.cli import main
from speechtaxi.records import read_predictions, read_run, write_manifest
from speechtaxi.train import configs
from speechtaxi.types import Utterance

CONFIGS = [name for name in configs() if name.startswith(("cascade_", "recognizer_"))]
MODELS = {
    "cascade_byt5": ("zeroshot", "byt5"),
    "cascade_faster_whisper": ("faster", "xlmr"),
    "cascade_furina": ("zeroshot", "glot500"),
    "cascade_glot500": ("mms", "glot500"),
    "cascade_mms_1b_all": ("mms", "xlmr"),
    "cascade_mms_zeroshot": ("zeroshot", "xlmr"),
    "cascade_seamless": ("seamless", "xlmr"),
    "cascade_seamless_english": ("seamless", "xlmr"),
    "cascade_tfidf": ("mms", None),
    "cascade_tiny": ("zeroshot", None),
    "cascade_whisper_furina": ("openai", "glot500"),
    "cascade_whisper_llm2vec": ("openai", "llm2vec"),
    "cascade_whisper_xlmr": ("openai", "xlmr"),
    "cascade_whisper_xlmr_large": ("openai", "xlmr"),
    "recognizer_native": (None, None),
    "recognizer_romanized": (None, None),
}
"""Who transcribes and who reads; None: it comes with its own, which has no peer."""

TEXTS = ["the sea and the wind", "dozhd", "étang à l'aube", "x", "rain " * 60]

pytestmark = pytest.mark.slow


def test_every_config_has_its_models_here():
    assert set(CONFIGS) == set(MODELS)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Keep transcripts out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECHTAXI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips of noise, four to train on; two in a language that few recognisers know."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    rows = []
    for number, split in enumerate([*["train"] * 4, *["dev"] * 2, *["test"] * 2]):
        path = folder / f"{number}.wav"
        wave = 0.1 * random.standard_normal(8_000 + 1_500 * number)
        soundfile.write(path, np.cumsum(wave) / 40 if number % 2 else wave, 16_000)
        rows.append(
            Utterance(
                id=str(number),
                language="bgc" if number in (3, 7) else "eng",
                audio=str(path),
                split=split,
                text=("rain and wind", "a new song")[number % 2],
                label=("low", "high")[number % 2],
            )
        )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def zeroshot(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "zs", build("wav2vec2", 32), ZERO_SHOT)


@pytest.fixture(scope="module")
def faster(tmp_path_factory):
    pytest.importorskip("faster_whisper")
    converters = pytest.importorskip("ctranslate2.converters")
    hub = save_transformers(tmp_path_factory.mktemp("models") / "whisper", positions=448)
    transformers.WhisperTokenizerFast.from_pretrained(hub).save_pretrained(hub)
    folder = tmp_path_factory.mktemp("models") / "faster"
    files = ["tokenizer.json", "preprocessor_config.json"]
    converters.TransformersConverter(hub, copy_files=files).convert(str(folder))
    return str(folder)


def save_encoder(kind, folder):
    """Write a text encoder as the hub has it and return its `--model` options."""
    folder.mkdir()
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    if kind == "byt5":
        config = transformers.T5Config(
            vocab_size=384, d_model=32, d_kv=16, d_ff=37, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
        transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
        transformers.ByT5Tokenizer().save_pretrained(folder)
    elif kind == "llm2vec":
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        letters = {letter: n for n, letter in enumerate([*bytes_to_unicode().values(), "</s>"])}
        _, mntp, supervised = save_llm2vec(folder, vocab_size=len(letters))
        tokenizer = Tokenizer(models.BPE(letters, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="</s>"
        ).save_pretrained(mntp)
        return [f"--model.encoder={mntp}", f"--model.adapters=[{supervised}]"]
    else:
        config = transformers.XLMRobertaConfig(
            **small, intermediate_size=37, vocab_size=80, pad_token_id=1,
            max_position_embeddings=514,
        )  # fmt: skip
        model = transformers.XLMRobertaForMaskedLM(config)
        save_sentencepiece(folder)
        if kind == "glot500":  # and Furina: pickled weights, and a SentencePiece model alone
            config.save_pretrained(folder)
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
        else:
            model.save_pretrained(folder)
            transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
            (folder / "sentencepiece.bpe.model").unlink()
    return [f"--model.encoder={folder}"]


def save_sentencepiece(folder):
    """Write an XLM-R tokenizer as Glot500's folder has it."""
    spm = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 10), model_writer=model, model_type="unigram",
        vocab_size=40, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    marks = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    marks |= {"unk": "<unk>", "mask": "<mask>"}
    settings = {f"{name}_token": mark for name, mark in marks.items()}
    settings |= {"model_max_length": 512, "tokenizer_class": "XLMRobertaTokenizer"}
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, clips, tmp_path_factory):
    """A config's name, its tiny encoder's folder, and the run folder after two epochs."""
    name = request.param
    recognizer, encoder = MODELS[name]
    folder = tmp_path_factory.mktemp(name)
    arguments = ["fit", "-c", "cpu", "-c", name, f"--data.manifest={clips}"]
    arguments += ["--data.labels=[low,high]", "--data.batch_size=2", "--trainer.max_epochs=2"]
    arguments += [f"--run={folder / 'run'}"]
    settings = yaml.safe_load(configs()[name].read_text())["model"]["init_args"]
    if recognizer:
        path = request.getfixturevalue(recognizer)
        prefix = {"faster": "faster-whisper:", "openai": "whisper:"}.get(recognizer, "")
        arguments += [f"--model.recognizer={prefix}{path}"]
    if "fallback" in settings:
        arguments += [f"--model.fallback={request.getfixturevalue('zeroshot')}"]
    if encoder:
        arguments += save_encoder(encoder, folder / "encoder")
    if name == "cascade_tfidf":  # is done after an epoch
        assert main(arguments) == 0
    else:
        with pytest.raises(Interrupted):
            main([*arguments, "--trainer.callbacks+=test_train.StopAfterOneEpoch"])
        broken = torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)
        assert (broken["epoch"], broken["global_step"]) == (0, 2)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    return name, folder / "encoder", folder / "run"


def test_it_was_tuned_as_its_config_says_and_resumed(trained):
    name, encoder, run = trained
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert all(v.isfinite().all() for v in saved["state_dict"].values() if v.is_floating_point())
    if MODELS[name][1] is None:
        return
    mntp, supervised = encoder / "mntp", [str(encoder / "supervised")]
    lora = MODELS[name][1] == "llm2vec"
    before = open_text_encoder(str(mntp if lora else encoder), adapters=supervised * lora)
    after = {k.removeprefix("encoder."): v for k, v in saved["state_dict"].items()}
    if lora:
        assert all(v.abs().sum() > 0 for k, v in after.items() if "lora_B" in k)
        after = {k.replace(".base_layer", ""): v for k, v in after.items() if ".lora_" not in k}
    moved = {k for k, v in before.state_dict().items() if not torch.equal(v, after[k])}
    layers = {k for k, v in before.state_dict().items() if v.ndim > 1}
    unused = {"model.embeddings.position_embeddings.weight"} & layers  # beyond the longest text
    assert not moved if lora else layers - unused <= moved


def test_logits_are_those_of_the_reference_class_and_of_the_text_alone(trained):
    name, _, run = trained
    model = checkpoint.load(run)
    if isinstance(model, cascade.Speller):
        waves = [torch.randn(n) * 0.1 for n in (9_000, 12_000, 7_000)]
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        with torch.inference_mode():
            scores, counts = model(padded, torch.tensor([len(wave) for wave in waves]))
            for wave, row, n in zip(waves, scores, counts, strict=True):
                alone, _ = model(wave[None], torch.tensor([len(wave)]))
                torch.testing.assert_close(row[:n], alone[0], atol=1e-5, rtol=1e-5)
        return
    with torch.inference_mode():
        alone = torch.cat([model.logits_of([text]) for text in TEXTS])
        torch.testing.assert_close(model.logits_of(TEXTS), alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.logits_of(TEXTS[::-1]).flip(0), alone, atol=1e-5, rtol=0)
        if MODELS[name][1] is not None:
            peer = reference_class(model.encoder)
            expected = torch.cat([peer_logits(model, peer, text) for text in TEXTS])
            torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def reference_class(encoder):
    """transformers' own class with a trained encoder's weights; its mean reads no pooler."""
    settings = {k: v for k, v in encoder.config["model"].items() if k != "is_causal"}
    settings = transformers.AutoConfig.for_model(**settings)
    if settings.model_type == "t5":
        peer = transformers.T5EncoderModel(settings)
        peer.encoder.load_state_dict(encoder.model.state_dict())
    else:
        peer = transformers.AutoModel.from_config(settings)
        keys = peer.load_state_dict(encoder.model.state_dict(), strict=False)
        assert not keys.unexpected_keys
        assert all(key.startswith("pooler.") for key in keys.missing_keys)
    return peer.eval()


def peer_logits(model, peer, text):
    encoder = model.encoder
    tokens = encoder.tokenizer(
        text, truncation=True, max_length=encoder.config["max_tokens"], return_tensors="pt"
    )
    return model.head(everywhere(peer, tokens.input_ids).mean(1))


def test_it_trains_in_bf16_and_every_tuned_weight_has_a_gradient(trained):
    """As DDP needs, and as the trainer's bf16-mixed does: autocast around the forward pass."""
    name, _, run = trained
    if name == "cascade_tfidf":
        pytest.skip("it is solved, not trained")
    saved = checkpoint.read(run)
    model = getattr(cascade, saved.class_path.split(".")[1])(**saved.settings)
    model.load_state_dict(saved.state)
    model.train()
    clips = [Utterance(str(n), "eng", text="rain and wind", label="low") for n in range(2)]
    waves = [np.random.default_rng(n).standard_normal(9_000).astype(np.float32) for n in (1, 2)]
    batch = collate(clips, waves, [0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        if isinstance(model, cascade.Speller):
            scores, _ = model(batch.waveforms, batch.lengths)
            loss = scores.square().mean()
        else:
            logits = model.logits_of(["rain and wind", "a new song"])
            loss = torch.nn.functional.cross_entropy(logits, batch.labels)
    loss.backward()
    assert loss.isfinite()
    for weight, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, weight
            assert value.grad.isfinite().all(), weight


def test_the_export_answers_as_the_run_does(trained, clips, tmp_path, capsys):
    name, encoder, run = trained
    assert main(["test", str(run)]) == 0
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    shutil.move(encoder, tmp_path / "away") if encoder.exists() else None  # needed no more
    try:
        if name.startswith("recognizer_"):
            models = [checkpoint.load(folder) for folder in (run, tmp_path / "model")]
            wave = torch.randn(1, 9_000)
            written = [model.recognize(wave, torch.tensor([9_000])) for model in models]
            assert written[0] == written[1]
            return
        tested = {row.id: row for row in read_predictions(run / "predictions-test.jsonl")}
        paths = {n: str(clips.parent / f"{n}.wav") for n in tested}
        languages = {"6": "eng", "7": "bgc"}
        files = [Utterance(n, languages[n], audio=path) for n, path in paths.items()]
        for row in speechtaxi.load(str(tmp_path / "model")).classify(files):
            assert row.text == tested[row.id].text
            assert row.flags == tested[row.id].flags
            assert row.probabilities == pytest.approx(tested[row.id].probabilities, abs=1e-5)
        assert len(tested) == 2
        assert read_run(run).recognizer
        known = name in ("cascade_furina", "cascade_mms_zeroshot", "cascade_byt5", "cascade_tiny")
        unknown = {"cascade_whisper_furina": "fallback"}.get(name, "unsupported_language")
        assert known or unknown in tested["7"].flags
        capsys.readouterr()
        model = str(tmp_path / "model")
        assert main(["classify", model, paths["6"], "--language", "eng"]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == "6.wav"
    finally:
        if (tmp_path / "away").exists():
            shutil.move(tmp_path / "away", encoder)


def test_names_of_models_are_those_that_are_tried():
    """A config that reads another family needs another model here."""
    reads = {
        "xlmr": "FacebookAI/xlm-roberta",
        "glot500": ("cis-lmu/", "yihongLiu/"),
        None: "ngrams",
    }
    reads |= {"byt5": "google/byt5", "llm2vec": "McGill-NLP/LLM2Vec"}
    hears = {"openai": "whisper:", "faster": "faster-whisper:", "seamless": "facebook/seamless"}
    hears |= {"mms": "facebook/mms-1b-all", "zeroshot": "mms-meta/mms-zeroshot"}
    for name, (recognizer, encoder) in MODELS.items():
        settings = yaml.safe_load(Path(configs()[name]).read_text())["model"]["init_args"]
        if name.startswith("cascade_"):
            assert settings.get("encoder", "ngrams").startswith(reads[encoder]), name
            assert settings.get("recognizer", hears[recognizer]).startswith(hears[recognizer]), name
