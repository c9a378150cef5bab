"""Hold why a text got its score: what each of its terms added, and where these stand in the text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What a term of a text adds to the logit of a class.

    Attributes:
        terms: the n-gram or word, prepared as for the model; with hashed features all n-grams of the text in a column.
        places: where these stand in the text, as half-open ranges of characters, in order; each contributes, and
            `contribution` is of all together.
        contribution: negative where it speaks against the class.
    """

    terms: tuple[str, ...]
    places: tuple[Place, ...]
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a text got the score of a class: `logit` is the sum of the contributions, `others` and `rest`.

    Attributes:
        label: the class that is explained.
        predicted: what the text is classified as: the most probable class, or "undecided".
        probability: of `label`.
        logit: the score of `label` before softmax or sigmoid; where two classes have one output, the first has the
            negative of the second's.
        method: "exact", or "gradient x input".
        reasons: the terms with the largest contributions, by falling size, whatever the sign.
        num_others: number of further terms.
        others: what these add together.
        rest: what no term adds: the biases, or with gradient times input what is missing to the logit.
    """

    label: str
    predicted: str
    probability: float
    logit: float
    method: str
    reasons: tuple[Reason, ...]
    num_others: int
    others: float
    rest: float

    def describe(self) -> dict[str, Any]:
        """Return all but what predictions have anyway as JSON values."""
        return {
            "label": self.label,
            "logit": self.logit,
            "method": self.method,
            "terms": [
                {
                    "terms": list(reason.terms),
                    "places": [list(place) for place in reason.places],
                    "contribution": reason.contribution,
                }
                for reason in self.reasons
            ],
            "num_others": self.num_others,
            "others": self.others,
            "rest": self.rest,
        }

    def to_json(self) -> str:
        r"""Return `describe` as JSON on one line, in which half a surrogate pair is an escape such as `\ud800`."""
        text = json.dumps(self.describe(), ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, kw_only=True)
class TopTerm:
    """A term of the vocabulary and what it does for a class.

    Attributes:
        term: the n-gram or word.
        effect: the logit of a row with this term alone less that of a row without any.
    """

    term: str
    effect: float
