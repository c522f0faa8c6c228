"""LoRA: nothing changes before training, only the update is trained, and it is restored."""

import pytest
import torch
from torch import nn

from speechtaxi.errors import InputError

pytest.importorskip("peft", reason="peft is not installed")

from speechtaxi.lora import add_lora


def encoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 3)).eval()


def test_the_formula():
    """W x + alpha / r B A x, and B begins with zeros."""
    plain, adapted, x = encoder(), encoder(), torch.randn(5, 4)
    add_lora(adapted, {"r": 2, "alpha": 6, "targets": ["0"]})
    torch.testing.assert_close(adapted(x), plain(x))
    a, b = adapted[0].lora_A["default"].weight, adapted[0].lora_B["default"].weight
    assert a.shape == (2, 4)
    nn.init.normal_(b)
    torch.testing.assert_close(adapted[0](x), plain[0](x) + 6 / 2 * x @ a.T @ b.T)


def test_only_the_update_is_trained_and_restored():
    adapted, again = encoder(), encoder()
    add_lora(adapted, {"r": 2})
    trained = [name for name, weights in adapted.named_parameters() if weights.requires_grad]
    assert trained == [f"{n}.lora_{x}.default.weight" for n in (0, 3) for x in "AB"]
    adapted(torch.randn(2, 4)).sum().backward()
    nn.init.normal_(adapted[3].lora_B["default"].weight)
    add_lora(again, {"r": 2})
    again.load_state_dict(adapted.state_dict())
    x = torch.randn(2, 4)
    torch.testing.assert_close(again(x), adapted(x))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rank": 4}, "has no setting rank; there are: r, alpha, dropout, targets"),
        ({"targets": ["query"]}, "query"),
        ({"r": 0}, "r"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, told):
    with pytest.raises(InputError, match=told) as caught:
        add_lora(encoder(), settings)
    assert "\n" not in str(caught.value)
