"""Label sets of the field, by name, in their published order."""

from __future__ import annotations

from collections.abc import Sequence

from speechtaxi.errors import InputError

LABEL_SETS: dict[str, tuple[str, ...]] = {
    # SpeechTaxi, arXiv 2409.06372; Taxi1500, arXiv 2305.08487
    "taxi1500": ("Recommendation", "Faith", "Description", "Sin", "Grace", "Violence"),
    # SIB-200 and SIB-Fleurs, arXiv 2501.06117
    "sib200": (
        "science/technology",
        "travel",
        "politics",
        "sports",
        "health",
        "entertainment",
        "geography",
    ),
    # The six topics of the spoken news demo
    "news6": ("economy", "health", "sport", "weather", "conflict", "culture"),
}


def label_set(labels: str | Sequence[str]) -> list[str]:
    """Return the labels of a named set, or the given ones after checking them.

    >>> label_set("news6")[:2]
    ['economy', 'health']
    >>> label_set(["yes", "no"])
    ['yes', 'no']

    Raises:
        InputError: the name is unknown, fewer than two labels are given, or one is repeated.
    """
    if isinstance(labels, str):
        if labels not in LABEL_SETS:
            raise InputError(
                f"unknown label set '{labels}'; use one of {', '.join(LABEL_SETS)}, "
                "or list the labels themselves"
            )
        return list(LABEL_SETS[labels])
    chosen = list(labels)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise InputError(f"labels must be at least two different names, not {chosen}")
    return chosen
