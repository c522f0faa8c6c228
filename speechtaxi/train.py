"""Front door: `speechtaxi fit | validate | test | predict`, on the Lightning CLI."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from speechtaxi.errors import InputError

SCORE_USAGE = """usage: speechtaxi {verb} RUN [-c CONFIG] [--data.NAME VALUE] [--trainer.NAME VALUE]

RUN is a run folder that `speechtaxi fit` wrote; its model, data and labels are used, and what is
given here overrides its settings, as in --data.test_languages '[eng,fra]' --data.test_split dev.
"""


def main(argv: list[str]) -> int:
    """Run a stage; `argv` begins with its name."""
    verb, *arguments = argv
    if verb != "fit" and (not arguments or arguments[0] in ("-h", "--help")):
        print(SCORE_USAGE.format(verb=verb))
        return 0 if arguments else 2
    quiet()
    arguments = [config_path(a, b) for a, b in zip(["", *arguments], arguments, strict=False)]
    return fit(arguments) if verb == "fit" else score(verb, arguments[0], arguments[1:])


def quiet() -> None:
    """Let warnings of ours through, and Lightning's advertisements not."""
    import lightning.pytorch  # sets the levels of its loggers when imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=lightning.pytorch.__name__)
    warnings.filterwarnings("ignore", message="Experiment logs directory")  # see MetricsLog
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)


def configs(*kinds: str) -> dict[str, Path]:
    """Return the configs that come with the package, by short name (default: those of `fit`)."""
    here = Path(__file__).parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    kinds = kinds or ("trainer", "data", "model")
    return {p.stem: p for kind in kinds for p in sorted((folder / kind).glob("*.yaml"))}


def config_path(before: str, argument: str) -> str:
    """Resolve a short name behind -c or --config to the packaged file.

    Raises:
        InputError: it is neither a file nor a short name.
    """
    option, equals, value = argument.partition("=")
    if equals and option in ("-c", "--config"):
        return f"{option}={config_path('-c', value)}"
    if before not in ("-c", "--config") or Path(argument).is_file():
        return argument
    found = configs().get(Path(argument).stem)
    if found is None:
        raise InputError(
            f"no config file {argument}; give a path, or a short name: {', '.join(configs())}"
        )
    return str(found)


def fit(arguments: list[str]) -> int:
    """Train, with `sys.argv` as the Lightning CLI (and its DDP processes) want it."""
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

    from speechtaxi.callbacks import EpochLines, EpochSeed, FiniteLoss, Interruption, MetricsLog
    from speechtaxi.data import SpeechDataModule
    from speechtaxi.writer import Calibrator, RunWriter

    class FitCLI(LightningCLI):
        """Adds the run folder, and the callbacks that fill it."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_argument("--run", type=str, help="the run folder (required)")
            parser.add_argument("--system", type=str, help="name in reports; default: the folder's")
            parser.add_argument(
                "--setup", type=str, help="what reports call a variant of zero-shot"
            )
            parser.add_argument("--notes", type=list[str], default=[], help="what reports repeat")
            parser.add_argument(
                "--patience", type=int, help="stop after so many epochs without a better dev score"
            )
            parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
            parser.link_arguments("data.labels", "model.init_args.labels")

        def _parse_ckpt_path(self) -> None:
            """Our checkpoints restore weights and progress; the settings are the config's."""

        def before_instantiate_classes(self) -> None:
            config = self.config.fit
            if config.run is None:
                raise InputError("name the run folder: --run runs/NAME")
            if config.threads:
                torch.set_num_threads(config.threads)
            run = Path(config.run)
            if config.ckpt_path is None and (run / "checkpoints").is_dir():
                raise InputError(
                    f"{run} holds a run already; go on with it with --ckpt_path last, "
                    "or choose another folder"
                )
            last = run / "checkpoints" / "last.ckpt"
            if config.ckpt_path == "last":
                config.ckpt_path = str(last) if last.is_file() else None
            config.trainer.default_root_dir = str(run)
            if config.trainer.logger is None:
                config.trainer.logger = False

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            config = self.config.fit
            monitor, mode = getattr(self.model, "monitor", ("dev/macro_f1", "max"))
            kept = {"dirpath": f"{config.run}/checkpoints", "enable_version_counter": False}
            callbacks = [
                ModelCheckpoint(filename="best", monitor=monitor, mode=mode, **kept),
                ModelCheckpoint(filename="last", **kept),
                Calibrator(config.run),
                RunWriter(config.run, config.system, config.notes, config.setup),
                EpochSeed(),
                FiniteLoss(),
                interruption,
            ]
            if config.patience:
                callbacks.append(EarlyStopping(monitor, mode=mode, patience=config.patience))
            if sys.stderr.isatty():
                callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
            else:
                kwargs["enable_progress_bar"] = False
                callbacks.append(EpochLines())
            if config.trainer.logger is False:
                kwargs["logger"] = MetricsLog(config.run)
            given = self.config_init.fit.trainer.callbacks or []
            return super().instantiate_trainer(callbacks=[*callbacks, *given], **kwargs)

    torch.set_float32_matmul_precision("high")
    sys.argv[1:] = ["fit", *arguments]
    interruption = Interruption()
    try:
        FitCLI(
            LightningModule,
            SpeechDataModule,
            save_config_callback=SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
            subclass_mode_model=True,
            seed_everything_default=0,
            trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
            parser_kwargs={
                "exit_on_error": False,
                "fit": {"prog": "speechtaxi fit", "exit_on_error": False},
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
    except SystemExit:
        if interruption.seen:
            raise KeyboardInterrupt from None
        raise
    except (ArgumentError, ValueError) as error:  # how jsonargparse tells what went wrong in it
        raise told(error) from error
    return 0


def told(error: Exception) -> Exception:
    """Return the InputError inside or, for an argument that cannot be parsed, one that says so."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, InputError):
        inner = inner.__cause__ or inner.__context__
    if isinstance(inner, InputError):
        return inner
    if isinstance(error, ArgumentError):
        return InputError(" ".join(str(error).split()))
    return error


def score(verb: str, run: str, arguments: list[str]) -> int:
    """Validate, test or predict with a finished run."""
    import torch
    import yaml
    from lightning.pytorch import Trainer, seed_everything
    from lightning.pytorch.callbacks import RichProgressBar
    from lightning.pytorch.cli import ActionConfigFile, LightningArgumentParser

    from speechtaxi import checkpoint
    from speechtaxi.data import SpeechDataModule
    from speechtaxi.writer import Calibrator, RunWriter

    config_file = Path(run) / "config.yaml"
    if not config_file.is_file():
        raise InputError(f"{run} is no run folder: it has no config.yaml; train with `fit` first")
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    parser = LightningArgumentParser(prog=f"speechtaxi {verb} {run}", exit_on_error=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_argument("--allow_remote_code", type=list[str], default=[])
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(SpeechDataModule, "data")
    kept = ("accelerator", "strategy", "devices", "num_nodes", "precision", "deterministic")
    parser.set_defaults({f"trainer.{name}": config["trainer"][name] for name in kept})
    parser.set_defaults({f"data.{name}": value for name, value in config["data"].items()})
    try:
        settings = parser.parse_args(arguments)
    except ArgumentError as error:
        raise told(error) from error
    if config.get("threads"):
        torch.set_num_threads(config["threads"])
    allowed = tuple(settings.allow_remote_code)
    model = checkpoint.load(run, allow_remote_code=allowed, trainable=True)
    seed_everything(config.get("seed_everything") or 0, verbose=False)
    data = parser.instantiate_classes(settings).data
    labels = getattr(model, "labels", None)
    if labels is not None and data.labels != labels:
        raise InputError(f"{run} knows the labels {labels}, but the data has {data.labels}")
    options = settings.trainer.as_dict() | {
        "default_root_dir": run,
        "logger": False,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_progress_bar": sys.stderr.isatty(),
        "enable_model_summary": False,
        "callbacks": [RunWriter(run)],
    }
    dev_clips = ("languages", "dev_share", "test_share")  # the run's own, all of them
    if (
        verb == "validate"
        and not getattr(model, "calibrated", True)
        and settings.trainer.limit_val_batches is None
        and all(getattr(settings.data, name) == config["data"].get(name) for name in dev_clips)
    ):
        options["callbacks"].append(Calibrator(run))
    if sys.stderr.isatty():
        options["callbacks"].append(RichProgressBar(console_kwargs={"stderr": True}))
    trainer = Trainer(**options)
    if verb == "predict":
        trainer.predict(model, data, return_predictions=False)
        return 0
    scores = (trainer.validate if verb == "validate" else trainer.test)(model, data, verbose=False)
    print(json.dumps({name: round(value, 4) for name, value in scores[0].items()}))
    return 0
