"""What language models may be called where one is named: their ids and aliases, as clients send them."""

from collections.abc import Collection, Mapping, Sequence

from billing.catalog.snapshot import without_client_marks
from billing.models import LanguageModel, LanguageModelAlias


class UnknownModelsError(ValueError):
    """Some of the names are no models; the text names them."""


def model_ids_by_name() -> dict[str, str]:
    """Return the id of every language model on sale by all names that clients may send: its id and its aliases."""
    ids = LanguageModel.objects.filter(is_enabled=True).values_list("model_id", flat=True)
    aliases = LanguageModelAlias.objects.filter(language_model__is_enabled=True)
    return {**dict(aliases.values_list("alias", "language_model__model_id")), **{name: name for name in ids}}


def find_model_ids(names: Sequence[str], *, by_name: Mapping[str, str], kept: Collection[str] = ()) -> list[str]:
    """Return the id of each name once, in order: the request path compares ids. What was `kept` before may stay.

    Raises UnknownModelsError.
    """
    known = {**{name: name for name in kept if name not in by_name}, **by_name}
    typed = [name if name in known else without_client_marks(name) for name in names]
    unknown = [name for name in typed if name not in known]
    if unknown:
        raise UnknownModelsError(f"No such model: {', '.join(unknown[:5])}.")
    return list(dict.fromkeys(known[name] for name in typed))
