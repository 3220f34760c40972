"""What is known of sequences that a model fills in, as written on a command line.

--template='The ____ of'           text in which each _ is a token to draw (--blank=? takes another sign); what comes after is drawn too
--template=5,3,_,_,7               tokens, where the data has no tokenizer; without commas each sign is one: 53..7 (blank: _ or .)
--prompt='In 1912'                 the beginning, all else drawn
--evidence=test:0:4 --fill=10:20   rows whose tokens 10 to 19 are drawn anew; repeat --fill for more spans
--evidence=test:0:4                rows of a task whose clues are known, such as puzzles: what is scored is drawn
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from experiments.cli import UsageError

if TYPE_CHECKING:
    from causal_gen.scm.intervention import Span

BLANK = -1  # as sampling/unmask.py has it; that module is imported where JAX is


def define(values: flags.FlagValues) -> None:
    """The flags of this file, --prompt aside."""
    text = "what is known of a sequence, _ for each token to draw: 'The ____ of', or 5,3,_,_,7 where the data has no tokenizer"
    flags.DEFINE_string("template", None, text, flag_values=values)
    flags.DEFINE_string("blank", "_", "the sign for a token to draw in --template", flag_values=values)
    text = "START:STOP, tokens of the evidence to draw anew; repeat for several spans"
    flags.DEFINE_multi_string("fill", [], text, flag_values=values)
    text = "rows to fill in: test:0:16, or a file as for counterfactual [with --fill: the first --num test rows]"
    flags.DEFINE_string("evidence", None, text, flag_values=values)


def wanted(values: Any) -> bool:
    """Whether any of the flags says that something is known."""
    return bool(values.template is not None or values.fill or values.evidence is not None)


def read(values: Any, run: Any, node: str, span: Span) -> Mapping[str, Any] | None:
    """Context rows with their "template" [b, t], or None where nothing is known.

    Raises `UsageError` or `UserError` for a model that does not fill in, no blank, spans that overlap or leave the row, and rows that the
    data knows to be impossible or ambiguous.
    """
    from causal_gen.sampling import unmask

    fills = "template" in run.model.context
    if not wanted(values) and not (values.prompt and fills):
        return None
    if not fills:
        how = "is drawn left to right" if run.model.context is not None else "draws no sequence"
        raise UsageError(f"--template, --fill and --evidence: this model {how} and fills nothing in; use --prompt")
    if sum([values.template is not None, values.prompt is not None, bool(values.fill or values.evidence)]) > 1:
        raise UsageError("--template, --prompt and --evidence (with --fill) each say what is known; give one of them")
    if values.fill or values.evidence:
        found = _rows(values, run, node, span)
    else:
        text, flag = (values.prompt, "--prompt") if values.template is None else (values.template, "--template")
        row = _typed(flag, text, None if values.template is None else values.blank, getattr(run.data, "tokenizer", None), span)
        found = {"template": np.repeat(row[None], values.num, 0)}
    unmask.check_template(found["template"], span.length, span.vocabulary)
    if hasattr(run.data, "check_template"):
        run.data.check_template(found["template"])
    return found


def _rows(values: Any, run: Any, node: str, span: Span) -> dict[str, Any]:
    from experiments import evidence  # what imports JAX is imported when it is needed: --help answers at once

    held = evidence.load(values.evidence, run, values.num).batch
    if node not in held:
        raise UsageError(f"--evidence={values.evidence}: has no {node!r}, which is to be filled in; give test:0:16 or a text")
    tokens = np.asarray(held[node], np.int32)
    if values.fill:
        blank = np.broadcast_to(spans(values.fill, span.length), tokens.shape)
    else:
        blank = np.asarray(held["loss_mask"]) > 0 if "loss_mask" in held else np.ones(tokens.shape, bool)
        if blank.all():
            raise UsageError("--evidence: nothing of these rows is given by the task, so name what to draw anew, as in --fill=10:20")
    return {**held, "template": np.where(blank, BLANK, tokens).astype(np.int32)}


def spans(texts: Sequence[str], length: int) -> np.ndarray:
    """The places that START:STOP texts name, bool [t]. Raises `UsageError` for spans that are empty, overlap or lie outside."""
    blank = np.zeros(length, bool)
    for text in (part for whole in texts for part in whole.split(",")):
        found = re.fullmatch(r"(\d+):(\d+)", text.strip())
        if not found:
            raise UsageError(f"--fill={text}: expected START:STOP, such as --fill=10:20")
        start, stop = int(found[1]), int(found[2])
        if not start < stop <= length:
            raise UsageError(f"--fill={text}: the row has places 0:{length}; give START < STOP within")
        if blank[start:stop].any():
            raise UsageError(f"--fill={text}: overlaps another span; name each place once")
        blank[start:stop] = True
    return blank


def _typed(flag: str, text: str, blank: str | None, tokenizer: Any, span: Span) -> np.ndarray:
    """A row [t] from what was typed; what is not said is blank."""
    if blank is not None and len(blank) != 1:
        raise UsageError(f"--blank={blank}: give one sign")
    if tokenizer is None:
        parts = _signs(text, blank)
    else:
        from experiments import questions

        parts = []
        for piece in re.split(f"({re.escape(blank)}+)", text) if blank else [text]:
            parts += [BLANK] * len(piece) if blank and piece[:1] == blank else questions.encode(flag, piece, tokenizer) if piece else []
    if len(parts) > span.length:
        raise UsageError(f"{flag}: {len(parts)} tokens, but a row has {span.length}; shorten it")
    row = np.full(span.length, BLANK, np.int32)
    row[: len(parts)] = parts
    return row


def _signs(text: str, blank: str | None) -> list[int]:
    """Numbers and blanks: separated, or one sign each."""
    separated = re.search(r"[\s,]", text.strip())
    parts = [part for part in re.split(r"[\s,]+", text.strip()) if part] if separated or blank is None else list(text.strip())
    try:
        return [BLANK if blank is not None and part in (blank, ".") else int(part) for part in parts]
    except ValueError as error:
        hint = f"as in 5,3,{blank},7" if blank else "as in 3,1,4"
        raise UsageError(f"{text!r}: this run's data has no tokenizer; give numbers, {hint}") from error
