"""Label sets of the field, by name, in their published order."""

from __future__ import annotations

from collections.abc import Sequence

from speechtaxi.errors import InputError

_MINDS14 = (
    "abroad", "address", "app_error", "atm_limit", "balance", "business_loan", "card_issues",
    "cash_deposit", "direct_debit", "freeze", "high_value_payment", "joint_account",
    "latest_transactions", "pay_bill",
)  # fmt: skip
_MASSIVE = (
    "datetime_query", "iot_hue_lightchange", "transport_ticket", "takeaway_query", "qa_stock",
    "general_greet", "recommendation_events", "music_dislikeness", "iot_wemo_off",
    "cooking_recipe", "qa_currency", "transport_traffic", "general_quirky", "weather_query",
    "audio_volume_up", "email_addcontact", "takeaway_order", "email_querycontact",
    "iot_hue_lightup", "recommendation_locations", "play_audiobook", "lists_createoradd",
    "news_query", "alarm_query", "iot_wemo_on", "general_joke", "qa_definition", "social_query",
    "music_settings", "audio_volume_other", "calendar_remove", "iot_hue_lightdim",
    "calendar_query", "email_sendemail", "iot_cleaning", "audio_volume_down", "play_radio",
    "cooking_query", "datetime_convert", "qa_maths", "iot_hue_lightoff", "iot_hue_lighton",
    "transport_query", "music_likeness", "email_query", "play_music", "audio_volume_mute",
    "social_post", "alarm_set", "qa_factoid", "calendar_set", "play_game", "alarm_remove",
    "lists_remove", "transport_taxi", "recommendation_movies", "iot_coffee", "music_query",
    "play_podcasts", "lists_query",
)  # fmt: skip

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
    # MasakhaNEWS, hub masakhane/masakhanews: the categories of its tables, by alphabet
    "masakhanews": (
        "business",
        "entertainment",
        "health",
        "politics",
        "religion",
        "sports",
        "technology",
    ),
    # IPTC Media Topics, top level, as in arXiv 2411.19638
    "iptc": (
        "arts, culture, entertainment and media",
        "conflict, war and peace",
        "crime, law and justice",
        "disaster, accident and emergency incident",
        "economy, business and finance",
        "education",
        "environment",
        "health",
        "human interest",
        "labour",
        "lifestyle and leisure",
        "politics",
        "religion",
        "science and technology",
        "society",
        "sport",
        "weather",
    ),
    # MInDS-14, arXiv 2104.08524, in the order of the data set's card
    "minds14": _MINDS14,
    # MASSIVE and Speech-MASSIVE, arXiv 2204.08582, in the order of MASSIVE's loader
    "massive": _MASSIVE,
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
