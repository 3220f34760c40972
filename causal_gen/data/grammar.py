"""Sentences of a small English grammar whose law is known, and minimal pairs: a sentence and the same with one word made ungrammatical.

    a sentence is drawn by its pattern, uniform; then what the pattern leaves open, uniform: number and noun of each noun phrase,
    its determiner, and verbs; what agrees follows                                                                              (1)
    p(x) = 1 / product of the numbers of choices: the patterns share no sentence, so that this is exact                        (2)

    agreement             the queen sleeps                        * the queen sleep
    attractor (phrase)    the queen near the boys sleeps          * the queen near the boys sleep         the noun between is
    attractor (clause)    the queen that the boys see sleeps      * the queen that the boys see sleep     of the other number
    determiner            these queens sleep                      * this queens sleep
    reflexive             the queen sees herself                  * the queen sees himself, * the queen sees themselves
    polarity              no queen ever sleeps                    * the queen ever sleeps
    argument              the queen sees the boy                  * the queen sleeps the boy

The verb of the first noun phrase is never one of an eighth of its (noun, verb) pairs in the rows; minimal pairs are made of these
alone, so that no row shows the good sentence of any. Both sentences of a pair are of one length and differ in one word: a
model that knows no grammar finds the good one likelier in half of them. Rows are sentences with an end, filled up with ends.

Tokens are words, or their pieces of so many letters from the left: "queens" is que ##ens, where ## says that a word goes on.

Source: the phenomena are among those of Warstadt et al., BLiMP, TACL 2020, by which BabyLM (Hu et al. 2024) scores models.
Letters: n rows or pairs, t places.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Generated, Rows, stream
from causal_gen.data.statements import Statements
from causal_gen.data.text import token_entries
from causal_gen.data.tokenizer import END, check_tokens
from causal_gen.types import Bool, Entry, Float, Int, at_least

NOUNS = ("boy", "king", "uncle", "monk", "actor", "prince", "girl", "queen", "aunt", "nun", "actress", "princess")
PLURALS = (*(f"{noun}s" for noun in NOUNS[:-2]), "actresses", "princesses")
MALE = 6  # of the nouns, the first
DETERMINERS = (("the", "the"), ("this", "these"), ("some", "some"))
INTRANSITIVE = ("sleep", "run", "laugh", "wait", "sing", "swim", "fall", "cry")
TRANSITIVE = ("see", "like", "help", "know", "greet", "hear", "fear", "trust")
PREPOSITIONS = ("near", "behind", "beside", "opposite")
REFLEXIVES = ("himself", "herself", "themselves")
# n: noun, d: determiner, i and t: verbs, p: preposition, r: reflexive; the figure is the noun phrase that it belongs to
PATTERNS: tuple[str, ...] = (
    "d0 n0 i0",
    "d0 n0 t0 d1 n1",
    "d0 n0 p d1 n1 i0",
    "d0 n0 that d1 n1 t1 i0",
    "d0 n0 t0 r0",
    "no n0 ever i0",
)
PHENOMENA = ("agreement", "argument", "attractor (phrase)", "attractor (clause)", "reflexive", "polarity", "determiner")
HELD = 8  # one (noun, verb) pair in so many is held out
LENGTH = 8  # the longest sentence and its end


def _verbs(plain: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple(((verb[:-1] + "ies" if verb.endswith("ry") else verb + "s"), verb) for verb in plain)


INTRANSITIVE_FORMS, TRANSITIVE_FORMS = _verbs(INTRANSITIVE), _verbs(TRANSITIVE)


def _words() -> tuple[str, ...]:
    fixed = ["that", "no", "ever", *PREPOSITIONS, *REFLEXIVES]
    formed = [form for pair in (*DETERMINERS, *INTRANSITIVE_FORMS, *TRANSITIVE_FORMS) for form in pair]
    return ("", *sorted({*fixed, *formed, *NOUNS, *PLURALS}))


WORDS = _words()


@dataclasses.dataclass(frozen=True)
class WordTokenizer:
    """A token a word, or with `letters` one a piece of so many letters; END is the empty word."""

    words: tuple[str, ...] = WORDS
    letters: int = 0

    @property
    def size(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def pieces(self) -> dict[str, tuple[str, ...]]:
        """Every word as the tokens that it is written with."""
        size = self.letters or max(map(len, self.words))
        return {word: tuple("##" * (at > 0) + word[at : at + size] for at in range(0, len(word), size)) for word in self.words}

    @functools.cached_property
    def tokens(self) -> tuple[str, ...]:
        """What each token says, END first."""
        return ("", *sorted({piece for word in self.words if word for piece in self.pieces[word]}))

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, "..."]]:
        """The tokens of every text, without END. Raises `DataError` naming a word that is unknown."""
        wrong = next((word for text in texts for word in text.split() if word not in self.pieces), None)
        if wrong is not None:
            check_tokens(np.array([self.size]), self.size, f"word {wrong!r}")
        return [np.array([self.numbers[piece] for word in text.split() for piece in self.pieces[word]], np.int32) for text in texts]

    def decode(self, tokens: Any) -> str:
        """The words of tokens [n], END left out. Raises `DataError` for a token out of range."""
        told = " ".join(self.tokens[int(token)] for token in check_tokens(tokens, self.size) if token != END)
        return told.replace(" ##", "")


@dataclasses.dataclass(frozen=True)
class GrammarConfig(Generated):
    """Eq. (1); `pairs` minimal pairs of each phenomenon. `letters` of a token, 0: words are tokens. `ends`: those that fill a row up are
    scored too, so that a model that is asked for whole rows has learned where a sentence ends."""

    name: str = "grammar"
    size: int = at_least(50_000, 1)
    test_size: int = at_least(2_000, 1)
    pairs: int = at_least(200, 1)
    letters: int = at_least(0, 0)
    ends: bool = False

    @functools.cached_property
    def tokenizer(self) -> WordTokenizer:
        return WordTokenizer(letters=self.letters)

    @functools.cached_property
    def length(self) -> int:
        """Places of the longest sentence and its end."""
        return LENGTH if not self.letters else 1 + max(sum(map(self._longest, spelled.split())) for spelled in PATTERNS)

    def _longest(self, slot: str) -> int:
        kinds = {"n": (*NOUNS, *PLURALS), "p": PREPOSITIONS, "r": REFLEXIVES, "d": sum(DETERMINERS, ())}
        kinds |= {"i": sum(INTRANSITIVE_FORMS, ()), "t": sum(TRANSITIVE_FORMS, ())}
        words = kinds[slot[0]] if slot == "p" or slot[1:].isdigit() else (slot,)
        return max(len(self.tokenizer.pieces[word]) for word in words)

    @property
    def entries(self) -> Mapping[str, Entry]:
        return token_entries(self.length, self.tokenizer.size, "words of a sentence, its end, and more ends")

    def draw(self, split: str) -> dict[str, np.ndarray]:
        """Sentences, their masks, and -log p of each, eq. (2)."""
        num, rng = self.count(split), stream(self.seed, 0x6A1, split)
        texts, nats = _drawn(rng, rng.integers(0, len(PATTERNS), num), held=False)
        rows = _rows(texts, self.tokenizer, self.length)
        if self.ends:
            rows["loss_mask"] = np.ones_like(rows["loss_mask"])
        return {**rows, "nats": nats}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """The size of the vocabulary, and what the law itself loses on a scored test token, in nats."""
        test = rows["test"]
        return {"tokens": {"vocabulary": self.tokenizer.size, "best_loss": float(test["nats"].sum() / test["loss_mask"].sum())}}

    def make(self) -> Grammar:
        return Grammar(self, {split: self.draw(split) for split in ("train", "test")}, self.tokenizer)


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar(Rows):
    """The source."""

    tokenizer: WordTokenizer = WordTokenizer()

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The sentences at `indices`, and which of their tokens are scored."""
        return {name: column[indices] for name, column in self.rows[split].items() if name != "nats"}

    def best(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
        """-log p of the sentences, which no model undercuts on average."""
        return self.rows[split]["nats"][indices]

    def solved(self, tokens: Int[np.ndarray, "b t"]) -> Bool[np.ndarray, "b"]:
        """Which rows are a sentence of the grammar up to their first end; one without an end is none. Held-out verbs are grammatical."""
        ended = (tokens == END).any(1)
        told = [self.tokenizer.decode(row[: np.argmax(row == END)]) for row in tokens]
        return ended & np.array([grammatical(text) for text in told], bool)

    def statements(self) -> dict[str, Statements]:
        """Minimal pairs by phenomenon: the first of two is the good sentence."""
        found = {}
        for number, name in enumerate(PHENOMENA):
            good, bad = minimal_pairs(stream(self.config.seed, 0x6B0 + number), name, self.config.pairs)
            rows = [_rows(texts, self.tokenizer, self.config.length) for texts in (good, bad)]
            tokens, mask = (np.stack([row[key] for row in rows], 1) for key in ("tokens", "loss_mask"))
            found[name] = Statements(tokens, mask, np.zeros(len(tokens), np.int32))
        return found


def _drawn(rng: np.random.Generator, patterns: np.ndarray, held: bool, opposed: bool = False) -> tuple[list[str], np.ndarray]:
    """Sentences of these patterns, whose first verb is of a held-out pair or of none, and -log of their chance by (2).

    `opposed`: the second noun phrase is of the other number.
    """
    num = len(patterns)
    number, noun = rng.integers(0, 2, (2, num)), rng.integers(0, len(NOUNS), (2, num))
    kind, place = rng.integers(0, len(DETERMINERS), (2, num)), rng.integers(0, len(PREPOSITIONS), num)
    inner = rng.integers(0, len(TRANSITIVE), num)
    shift = rng.integers(0, 1 if held else HELD - 1, num) + (0 if held else 1)
    verb = np.stack([(shift - noun[0]) % HELD, inner])  # of a held-out pair, noun + verb is a multiple of HELD
    if opposed:
        number[1] = 1 - number[0]
    open_slots = {"p": np.array(PREPOSITIONS)[place]}
    for of in range(2):
        open_slots |= {
            f"n{of}": np.array([NOUNS, PLURALS])[number[of], noun[of]],
            f"d{of}": np.array(DETERMINERS)[kind[of], number[of]],
            f"r{of}": np.array(REFLEXIVES)[np.where(number[of] == 1, 2, noun[of] >= MALE)],
            f"i{of}": np.array(INTRANSITIVE_FORMS)[verb[of], number[of]],
            f"t{of}": np.array(TRANSITIVE_FORMS)[verb[of], number[of]],
        }
    texts, costs = np.empty(num, object), np.empty(num)
    for pattern, spelled in enumerate(PATTERNS):
        rows = np.flatnonzero(patterns == pattern)
        columns = [open_slots[slot][rows] if slot in open_slots else np.full(len(rows), slot) for slot in spelled.split()]
        texts[rows] = [" ".join(words) for words in zip(*columns, strict=True)]
        costs[rows] = math.log(len(PATTERNS)) + sum(map(_cost, spelled.split()))
    return texts.tolist(), costs


def _cost(slot: str) -> float:
    """log of the number of choices at a slot; that of a noun phrase's number is counted with its noun."""
    free = {"p": len(PREPOSITIONS), "i0": HELD - 1, "t0": HELD - 1, "t1": len(TRANSITIVE)}
    free |= {f"{what}{of}": count for what, count in (("n", 2 * len(NOUNS)), ("d", len(DETERMINERS))) for of in range(2)}
    return math.log(free.get(slot, 1))


def minimal_pairs(rng: np.random.Generator, phenomenon: str, num: int) -> tuple[list[str], list[str]]:
    """`num` good sentences of a phenomenon, none of which any row can be, and what makes each of them wrong."""
    which = PHENOMENA.index(phenomenon)
    pattern = {"agreement": 0, "determiner": 0, "argument": 1}.get(phenomenon, which)
    good: list[str] = []
    while len(good) < num:
        texts, _ = _drawn(rng, np.full(num, pattern), held=True, opposed=phenomenon.startswith("attractor"))
        good += [text for text in texts if phenomenon != "determiner" or text.split()[0] in ("this", "these")]
    good = good[:num]
    return good, [_spoiled(rng, phenomenon, text.split()) for text in good]


def _spoiled(rng: np.random.Generator, phenomenon: str, words: list[str]) -> str:
    if phenomenon == "polarity":
        words[0] = "the"
    elif phenomenon == "determiner":
        words[0] = "these" if words[0] == "this" else "this"
    elif phenomenon == "reflexive":
        others = [other for other in REFLEXIVES if other != words[-1]]
        words[-1] = others[rng.integers(len(others))]
    elif phenomenon == "argument":
        plural = int(words[2] in TRANSITIVE)
        words[2] = INTRANSITIVE_FORMS[rng.integers(len(INTRANSITIVE))][plural]
    else:
        forms = {form: pair for pair in INTRANSITIVE_FORMS for form in pair}
        pair = forms[words[-1]]
        words[-1] = pair[1 - pair.index(words[-1])]
    return " ".join(words)


def grammatical(text: str) -> bool:
    """Whether some pattern, with some number and gender of its noun phrases, has these words."""
    words = text.split()
    fits = [spelled.split() for spelled in PATTERNS if len(spelled.split()) == len(words)]
    found = [dict(zip(pattern, words, strict=True)) for pattern in fits]
    return any(all(_allowed(slot, filled) for slot in filled) for filled in found)


def _allowed(slot: str, filled: Mapping[str, str]) -> bool:
    """Whether the word at a slot is one of its kind that agrees with the noun of its phrase."""
    word, of = filled[slot], slot[1:]
    if slot == "p":
        return word in PREPOSITIONS
    if not of.isdigit():
        return word == slot
    noun = filled[f"n{of}"]
    plural = int(noun in PLURALS)
    male = noun in (*NOUNS[:MALE], *PLURALS[:MALE])
    kinds: dict[str, Sequence[str]] = {
        "n": NOUNS + PLURALS,
        "d": [forms[plural] for forms in DETERMINERS],
        "i": [forms[plural] for forms in INTRANSITIVE_FORMS],
        "t": [forms[plural] for forms in TRANSITIVE_FORMS],
        "r": [REFLEXIVES[2 if plural else 1 - male]],
    }
    return word in kinds[slot[0]]


def _rows(texts: Sequence[str], tokenizer: WordTokenizer, length: int) -> dict[str, np.ndarray]:
    """Sentences with their ends, filled up; the filling is not scored."""
    tokens, mask = np.full((len(texts), length), END, np.int32), np.zeros((len(texts), length), np.float32)
    for row, sentence in enumerate(tokenizer.encode(texts)):
        tokens[row, : len(sentence)] = sentence
        mask[row, : len(sentence) + 1] = 1.0
    return {"tokens": tokens, "loss_mask": mask}
