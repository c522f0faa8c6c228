"""Text encoders: each family as a tiny model in the hub's layout, against its own class."""

import pytest
import torch
import transformers

from cascade.encoder import open_text_encoder
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
}


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    name, settings = FAMILIES[request.param]
    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path)
    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    ).save_pretrained(tmp_path)
    return str(tmp_path)


def test_mean_over_tokens_of_the_reference_class(folder):
    encoder = open_text_encoder(folder).eval()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        together = encoder(TEXTS)
        for text, vector in zip(TEXTS[:3], together, strict=False):
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
            torch.testing.assert_close(vector, hidden[0].mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder(TEXTS[::-1]).flip(0), together, atol=1e-5, rtol=1e-4)
    assert together.shape == (4, encoder.dim) == (4, 32)
    assert together.isfinite().all()


def test_saved_config_builds_it_without_weights(folder):
    encoder = open_text_encoder(folder).eval()
    again = open_text_encoder(config=encoder.config).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again(TEXTS), encoder(TEXTS))


def test_an_unreachable_hub_says_how_to_work_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"cannot load nobody/nothing.*HF_HOME"):
        open_text_encoder("nobody/nothing")
