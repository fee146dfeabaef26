"""Cards: what the weights in a file mean, as a .json file beside it (`card_path`).

The weights file holds tensors alone. Its card holds their `ModelSpec`, the file's SHA-256, and where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from facelm import checked
from facelm.files import write_whole
from facelm.models.download import sha256
from facelm.models.reading import CARD_ENDINGS, card_path, compare_with_card
from facelm.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known about weights.

    `nme` is inter-ocular, in percent, by subset; `data` what they were trained on, `recipe` and `commit` how.

    Raises:
        ValueError: a value of a wrong type, or out of range.
    """

    spec: ModelSpec
    sha256: str
    nme: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    licence: str = ""
    recipe: str = ""
    commit: str = ""

    def __post_init__(self) -> None:
        checked.hexadecimal(self.sha256, "sha256", 64)
        checked.scores(self.nme, "nme")
        for name in ("data", "licence", "recipe", "commit"):
            checked.text(getattr(self, name), name)


def read_card(weights: Path) -> Card | None:
    """The card beside the file `weights`; None where there is none.

    Raises:
        ValueError: the card is damaged, or belongs to other weights.
    """
    path = card_path(weights)
    if weights.suffix not in CARD_ENDINGS or not path.is_file():
        return None
    try:
        content = checked.mapping(checked.read_json(path), "a card", [entry.name for entry in fields(Card)])
        if missing := [name for name in ("spec", "sha256") if name not in content]:
            raise ValueError(f"it has no {' and no '.join(missing)}")
        card = Card(**{**content, "spec": ModelSpec.from_dict(content["spec"])})
    except ValueError as error:
        raise ValueError(f"the card '{path}' cannot be used ({error}). Copy or install it again") from error
    compare_with_card(weights, sha256(weights))
    return card


def write_card(weights: Path, spec: ModelSpec, **facts: object) -> Card:
    """Writes the card of the file `weights` beside it; `facts` are the other entries of `Card`."""
    card = Card(spec=spec, sha256=sha256(weights), **facts)  # type: ignore[arg-type]
    content = json.dumps({**asdict(card), "spec": spec.to_dict()}, indent=2)
    write_whole(card_path(weights), content + "\n")
    return card
