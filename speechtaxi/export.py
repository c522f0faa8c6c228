"""Front door: `speechtaxi export RUN FOLDER`."""

from __future__ import annotations

import argparse

CARD = """---
license: {license}
pipeline_tag: {task}
library_name: speechtaxi
language: [{languages}]
---
# {system}

{what}

- Topics: {labels}{calibration}
- Trained on: {languages} ({hours} h of audio, data fingerprint {fingerprint}), seed {seed}
- Versions: {versions}
{notes}
Use it: `speechtaxi classify FOLDER AUDIO... --language CODE`, or in Python
`speechtaxi.load("FOLDER").classify(["clip.wav"], language="eng")`.
"""

CALIBRATION = {
    True: "\n- Probabilities: calibrated on dev clips (temperature scaling)",
    False: "\n- Probabilities: not calibrated; do not take them at their word",
}


def main(argv: list[str]) -> int:
    """Write a run's best model as a folder to share."""
    p = argparse.ArgumentParser(
        prog="speechtaxi export",
        description="Write a run's best model as a folder to share: config.json, weights "
        "(safetensors), preprocessor, tokenizer and a model card. Nothing in it is pickled.",
    )
    p.add_argument("run", help="run folder")
    p.add_argument("folder", help="model folder to make")
    p.add_argument("--license", default="other", help="for the card; a base model may set it")
    p.add_argument(
        "--allow_remote_code", action="append", default=[], help="encoder whose own code may run"
    )
    args = p.parse_args(argv)

    from speechtaxi import checkpoint, records

    model = checkpoint.load(args.run, allow_remote_code=tuple(args.allow_remote_code))
    record = records.read_run(args.run)
    routes = {"e2e": "Hears a clip and tells its topic.", "cascade": "Reads a clip's transcript."}
    checkpoint.save(
        model,
        args.folder,
        CARD.format(
            license=args.license,
            task="audio-classification" if record.labels else "automatic-speech-recognition",
            system=record.system,
            what=routes[record.route] if record.labels else "Transcribes speech (CTC).",
            calibration=CALIBRATION[model.calibrated] if record.labels else "",
            labels=", ".join(record.labels) or "none, it is a recogniser",
            languages=", ".join(record.train_languages),
            hours=record.audio_hours,
            fingerprint=record.data_fingerprint,
            seed=record.seed,
            versions=", ".join(f"{name} {number}" for name, number in record.versions.items()),
            notes="".join(f"- Note: {note}\n" for note in record.notes),
        ),
    )
    print(args.folder)
    return 0
