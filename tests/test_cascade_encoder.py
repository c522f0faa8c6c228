"""Text encoders: each family as a tiny model in the hub's layout, against its own class."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from cascade.encoder import PretrainedTextEncoder, open_text_encoder
from speechtaxi.errors import InputError

TEXTS = ["rain and wind", "a new song", "the price of bread in the market", ""]
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *sorted({w for t in TEXTS for w in t.split()})]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "vocab_size": 64,
    "pad_token_id": 1,
}
FAMILIES = {
    "xlm-roberta": ("XLMRoberta", SMALL | {"max_position_embeddings": 64}),
    "bert": ("Bert", SMALL | {"max_position_embeddings": 64}),
    "t5": (
        "T5",
        {"d_model": 32, "d_kv": 16, "d_ff": 37, "num_layers": 2, "num_heads": 2, "vocab_size": 64},
    ),
    "llama": ("Llama", SMALL | {"num_key_value_heads": 1, "head_dim": 16}),
    "mistral": ("Mistral", SMALL | {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("Gemma2", SMALL | {"num_key_value_heads": 1, "head_dim": 16}),
}
DECODERS = ("llama", "mistral", "gemma2")


def save_tokenizer(folder, **options):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", **options
    ).save_pretrained(folder)


def save(folder, family, **settings):
    torch.manual_seed(0)
    name, small = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**small | settings)
    model = getattr(transformers, f"{name}Model")(config)
    model.save_pretrained(folder)
    save_tokenizer(folder, pad_token="<pad>", model_max_length=64)
    return model


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    save(tmp_path, request.param)
    return str(tmp_path)


def everywhere(model, ids):
    """Run the reference class with a mask that hides nothing, whatever the class would hide."""
    if model.config.model_type not in DECODERS:
        return model(input_ids=ids).last_hidden_state
    masks = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
    if model.config.model_type == "gemma2":
        masks = {"full_attention": masks, "sliding_attention": masks}
    return model(input_ids=ids, attention_mask=masks).last_hidden_state


def test_mean_over_tokens_of_the_reference_class(folder):
    encoder = open_text_encoder(folder).eval()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        together = encoder(TEXTS)
        for text, vector in zip(TEXTS[:3], together, strict=False):
            hidden = everywhere(model, tokenizer(text, return_tensors="pt").input_ids)
            torch.testing.assert_close(vector, hidden[0].mean(0), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(vector, encoder([text])[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder(TEXTS[::-1]).flip(0), together, atol=1e-5, rtol=1e-4)
    assert together.shape == (4, encoder.dim) == (4, 32)
    assert together.isfinite().all()


def test_saved_config_builds_it_without_weights(folder):
    encoder = open_text_encoder(folder).eval()
    again = open_text_encoder(config=encoder.config).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again(TEXTS), encoder(TEXTS))


def test_all_that_is_trained_has_a_gradient(folder):
    """DDP refuses the rest, such as a pooler that nothing reads."""
    encoder = open_text_encoder(folder)
    encoder(TEXTS).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_freeze_and_lora_as_for_speech(folder):
    encoder = open_text_encoder(folder)
    encoder.freeze("1")
    front, layers = encoder.parts()
    assert len(layers) == 2
    assert not any(p.requires_grad for p in front.parameters())
    assert [any(p.requires_grad for p in layer.parameters()) for layer in layers] == [False, True]
    encoder.freeze("all")
    assert not any(p.requires_grad for p in encoder.parameters())
    pytest.importorskip("peft", reason="peft is not installed")
    before = encoder.eval()(TEXTS)
    encoder.add_lora({"r": 2})
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    torch.testing.assert_close(encoder(TEXTS), before)
    for name, weights in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)
    after = encoder(TEXTS)
    assert not torch.allclose(after, before)
    again = open_text_encoder(config=encoder.config).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(TEXTS), after)
    again.merge_lora()
    assert not any("lora_" in name for name in again.state_dict())
    torch.testing.assert_close(again(TEXTS), after, atol=1e-5, rtol=1e-4)


def test_models_saved_with_a_pooler_are_still_read(tmp_path):
    model = save(tmp_path, "xlm-roberta")
    encoder = open_text_encoder(str(tmp_path))
    state = encoder.state_dict()
    assert not any("pooler" in name for name in state)
    old = {f"model.{name}": value for name, value in model.state_dict().items()}
    assert any("pooler" in name for name in old)
    assert encoder.load_state_dict(old).missing_keys == []


def test_longer_texts_are_cut(tmp_path):
    save(tmp_path, "bert")
    encoder = open_text_encoder(str(tmp_path), max_tokens=3).eval()
    torch.testing.assert_close(encoder(["the price of bread"]), encoder(["the price of"]))
    assert open_text_encoder(str(tmp_path), max_tokens=1000).max_tokens == 64


def save_llm2vec(root, **settings):
    """Write a decoder and two adapters over it as LLM2Vec's are on the hub; return their folders.

    The first has a configuration with code of its own beside it and the tokenizer, which has no
    token for padding; the second is an adapter and nothing else.
    """
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base, mntp, supervised = (root / name for name in ("base", "mntp", "supervised"))
    save(base, "llama", **settings)
    for number, folder in enumerate((mntp, supervised)):
        model = transformers.AutoModel.from_pretrained(base)
        lora = peft.LoraConfig(r=2, lora_alpha=4 + number, target_modules=["q_proj", "up_proj"])
        model = peft.get_peft_model(model, lora)
        torch.manual_seed(number)
        for name, weights in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weights, std=0.3)
        model.save_pretrained(folder)
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_llama_encoder.LlamaEncoderModel"}
    (mntp / "config.json").write_text(json.dumps(config))
    save_tokenizer(mntp)
    return base, mntp, supervised


@pytest.fixture
def llm2vec(tmp_path):
    return save_llm2vec(tmp_path)


def merged_by_hand(base, *adapters):
    """Return the decoder with W + alpha / r B A for each adapter in turn."""
    from safetensors.torch import load_file

    model = transformers.LlamaModel.from_pretrained(base).eval()
    for folder in adapters:
        settings = json.loads((folder / "adapter_config.json").read_text())
        update = load_file(folder / "adapter_model.safetensors")
        for name in [n for n in update if n.endswith("lora_A.weight")]:
            place = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = update[name.replace("lora_A", "lora_B")]
            scale = settings["lora_alpha"] / settings["r"]
            model.get_submodule(place).weight.data += scale * b @ update[name]
    return model


def test_llm2vec_stacks_adapters_and_reads_both_ways(llm2vec):
    base, mntp, supervised = llm2vec
    encoder = open_text_encoder(str(mntp), adapters=[str(supervised)]).eval()
    model = merged_by_hand(base, mntp, supervised)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        together = encoder(TEXTS)
        for text, vector in zip(TEXTS[:3], together, strict=False):
            hidden = everywhere(model, tokenizer(text, return_tensors="pt").input_ids)
            torch.testing.assert_close(vector, hidden[0].mean(0), atol=1e-5, rtol=1e-4)
        one, two = encoder.model(torch.tensor([[4, 5, 6], [4, 5, 7]])).last_hidden_state
        assert not torch.allclose(one[0], two[0])  # the first token knows of the last
        assert not torch.allclose(together, open_text_encoder(str(mntp)).eval()(TEXTS))
    assert all(weights.requires_grad for weights in encoder.parameters())
    again = open_text_encoder(config=encoder.config).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(TEXTS), encoder(TEXTS))


def test_an_encoder_that_lacks_a_layer_is_refused(folder):
    from safetensors.torch import load_file, save_file

    path = Path(folder) / "model.safetensors"
    layer = r"(layers|layer|block)\.1\."
    half = {name: value for name, value in load_file(path).items() if not re.search(layer, name)}
    save_file(half, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"lacks \d+ weights of a .*, such as .*{layer}"):
        open_text_encoder(folder)


def test_adapters_that_do_not_fit_are_refused(llm2vec, tmp_path):
    base, mntp, supervised = llm2vec
    other = tmp_path / "other"
    save(other, "xlm-roberta")
    with pytest.raises(InputError, match=r"the adapter .*supervised does not fit the encoder"):
        open_text_encoder(str(other), adapters=[str(supervised)])
    with pytest.raises(InputError, match="cannot load"):
        open_text_encoder(str(base), adapters=[str(other)])
    from safetensors.torch import load_file, save_file

    half = load_file(supervised / "adapter_model.safetensors")
    path = supervised / "adapter_model.safetensors"
    save_file({name: value for name, value in half.items() if ".1." not in name}, path)
    with pytest.raises(InputError, match="does not fit the encoder: Found missing adapter keys"):
        open_text_encoder(str(mntp), adapters=[str(supervised)])
    shutil.rmtree(base)
    with pytest.raises(InputError, match=r"cannot load .*base"):
        open_text_encoder(str(mntp))


def test_an_encoder_that_hears_padding_is_refused(tmp_path):
    small = {k: v for k, v in SMALL.items() if k not in ("vocab_size", "pad_token_id")}
    transformers.CanineModel(transformers.CanineConfig(**small)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"canine.*use google/byt5-small"):
        open_text_encoder(str(tmp_path))


def test_a_tokenizer_that_needs_sentencepiece_says_so(tmp_path, monkeypatch):
    """Furina's and Glot500's come as a SentencePiece model alone."""
    save(tmp_path, "xlm-roberta")
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"\x0e")
    monkeypatch.setattr("cascade.encoder._installed", lambda name: name != "sentencepiece")
    with pytest.raises(InputError, match=r"needs? sentencepiece; pip install sentencepiece"):
        PretrainedTextEncoder(str(tmp_path))


def test_an_unreachable_hub_says_how_to_work_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot load nobody/nothing.*HF_HOME"):
        open_text_encoder("nobody/nothing")
    with pytest.raises(InputError, match=r"cannot load nobody/nothing.*HF_HOME"):
        open_text_encoder("nobody/nothing", adapters=["nobody/adapter"])
