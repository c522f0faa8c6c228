"""Opens trained models: run folders and exported model folders, never pickles.

A model is a class name, plain settings, and tensors. The class must be one of the two routes', so a
checkpoint cannot name code of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from speechtaxi import temperature
from speechtaxi.errors import InputError

ROUTES = ("e2e", "cascade")
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Undrawn(TorchFunctionMode):
    """Leaves out the drawing of random weights, which takes longer than to load others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("uniform_", "normal_")):  # of tensors, nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Saved:
    """What is on disk of a trained model."""

    class_path: str
    settings: dict[str, Any]
    state: dict[str, Tensor]
    folder: Path
    temperature: float | None = None
    """Fitted to dev clips; None where it was not."""
    calibrated_on: tuple[str, ...] = ()
    """Languages of those clips."""


def is_model(folder: str | Path) -> bool:
    """Tell whether a folder is a run folder with a checkpoint or an exported model folder."""
    folder = Path(folder)
    if (folder / "checkpoints" / "best.ckpt").is_file():
        return True
    config = folder / CONFIG
    return config.is_file() and '"class_path"' in config.read_text(encoding="utf-8")


def weights_file(folder: str | Path) -> Path:
    """Return the file that holds a model's weights.

    Raises:
        InputError: the folder is absent, or holds no model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no model folder {folder}; give a run folder or an exported model folder")
    for name in ("checkpoints/best.ckpt", WEIGHTS):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} holds neither checkpoints/best.ckpt nor {WEIGHTS}; "
        "give a run folder whose fit has finished an epoch, or an exported model folder"
    )


def read(folder: str | Path) -> Saved:
    """Read a model's class name, settings and weights without building it.

    Raises:
        InputError: no model is there, its files are damaged, or it names a class of neither route.
    """
    path = weights_file(folder)
    try:
        if path.name == WEIGHTS:
            from safetensors.torch import load_file

            config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
            class_path, settings = config["class_path"], config["settings"]
            # Copies, as what is only mapped would be lost with a file that is overwritten
            state = {name: weights.clone() for name, weights in load_file(path).items()}
            fitted, languages = config.get("temperature"), config.get("calibrated_on") or ()
        else:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            class_path, settings = saved["class_path"], saved["hyper_parameters"]
            state = saved["state_dict"]
            calibration = temperature.read(folder)
            fitted = calibration and calibration.temperature
            languages = calibration.languages if calibration else ()
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is damaged or not from speechtaxi ({reason}); copy or train it again"
        ) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise InputError(f"{path} is damaged ({error}); copy or export it again") from error
    if fitted is not None:
        fitted = temperature.checked(fitted, str(path))
    return Saved(class_path, settings, state, Path(folder), fitted, tuple(languages))


def class_path(model: nn.Module) -> str:
    """Return what checkpoints call a model's class: the one that was trained."""
    own = type(model)
    return getattr(model, "class_path", None) or f"{own.__module__.split('.')[0]}.{own.__name__}"


def load(
    folder: str | Path, *, allow_remote_code: tuple[str, ...] = (), trainable: bool = False
) -> nn.Module:
    """Build a trained model, ready to classify (or to recognise), on the CPU.

    Args:
        folder: a run folder, or a model folder written by `speechtaxi export`.
        allow_remote_code: pretrained encoders whose own modelling code may be run, by name.
        trainable: build the LightningModule, for a Trainer; else Lightning is not needed.

    Raises:
        InputError: no usable model is there.
    """
    saved = read(folder)
    package, _, name = saved.class_path.rpartition(".")
    if package not in ROUTES or not name.isidentifier():
        raise InputError(f"{folder} names the class {saved.class_path}, which is of neither route")
    route = import_module(package)
    model_class = route.UNTRAINED.get(name) if not trainable else None
    model_class = model_class or getattr(route, name)
    settings = dict(saved.settings)
    if "allow_remote_code" in settings:  # what a checkpoint says of itself is no permission
        settings["allow_remote_code"] = list(allow_remote_code)
    for name in ("recognizer", "fallback", "encoder_config"):  # what was exported beside the model
        settings[name] = _absolute(settings.get(name), saved.folder)
    for name in ("recognizer", "fallback", "store"):
        settings[name] = _found(settings.get(name), saved.folder)
    if not trainable and not Path(settings["store"] or "").exists():
        settings["store"] = None  # the user's own, rather than a new one wherever this is
    with Undrawn():
        model = model_class(**{k: v for k, v in settings.items() if k in saved.settings})
    try:
        model.load_state_dict(saved.state, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{folder} does not fit this version of {saved.class_path}; use the version of "
            "speechtaxi that trained it (run.json tells), or train it again"
        ) from error
    model.float()  # what was trained in bf16-true
    if hasattr(model, "merge_lora"):  # quicker, and an exported folder needs no peft
        model.merge_lora()
    model.source, model.class_path = str(folder), saved.class_path
    if saved.temperature is not None:
        model.temperature, model.calibrated = saved.temperature, True
        model.calibrated_on = saved.calibrated_on
    return model.eval()


def save(model: nn.Module, folder: str | Path, card: str) -> None:
    """Write a model folder: config.json, model.safetensors, preprocessor, tokenizer, README.md.

    A cascade brings its recogniser with it where that one was trained here; one from the hub is
    named. The folder appears when it is complete.

    Args:
        card: the model card's text.

    Raises:
        InputError: the folder exists.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists; choose another folder, or remove it first")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    settings = json.loads(json.dumps(model.settings))
    for role in ("recognizer", "fallback"):
        if settings.get(role) and is_model(settings[role]):
            save(load(settings[role]), partial / role, card)
            settings[role] = f"./{role}"
    if "store" in settings:
        settings["store"] = None
    if "features" in settings:  # a place on this machine
        settings["features"] = None
    encoder = settings["encoder_config"]
    if hasattr(model.encoder, "tokenizer"):
        model.encoder.tokenizer.save_pretrained(partial / "tokenizer")
        encoder["name"] = "./tokenizer"
    features = encoder.get("features") or {"sampling_rate": 16_000, "do_normalize": False}
    _write_json(partial / "preprocessor_config.json", features)
    labels = list(getattr(model, "labels", ()))
    config = {
        "architectures": [class_path(model).split(".")[1]],
        "class_path": class_path(model),
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "settings": settings,
        "temperature": model.temperature if getattr(model, "calibrated", False) else None,
        "calibrated_on": list(getattr(model, "calibrated_on", ())),
    }
    _write_json(partial / CONFIG, config)
    tensors = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
    (partial / "README.md").write_text(card, encoding="utf-8")
    os.replace(partial, folder)


def _absolute(setting: Any, folder: Path) -> Any:
    """Resolve names that begin with ./ against the model folder."""
    if isinstance(setting, str) and setting.startswith("./"):
        return str(folder / setting)
    if isinstance(setting, dict) and "name" in setting:
        return setting | {"name": _absolute(setting["name"], folder)}
    return setting


def _found(name: str | None, folder: Path) -> str | None:
    """Return where a model or file of ours is, if the model was trained from another folder.

    It is looked for in the folders above the model's; a folder that is no model of ours is none, as
    hub ids look like paths too.
    """
    if name is None or Path(name).exists():
        return name
    places = (above / name for above in folder.absolute().parents)
    return next((str(place) for place in places if place.is_file() or is_model(place)), name)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
