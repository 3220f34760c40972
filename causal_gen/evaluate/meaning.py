"""What every figure of `evaluate/metrics.json` means, which way is good, and the figures as rows of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Meaning:
    """One sentence for a reader who knows no axiom by name. `arrow`: "down" smaller is better, "up" larger, "" neither."""

    label: str
    sentence: str
    arrow: Literal["up", "down", ""]


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure to be shown: its key in METRICS, what it is about, its value, and the figures it is to be held against."""

    metric: str
    about: str
    value: float | None
    unit: str = ""
    beside: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


PIXEL = "pixel, 0 to 1"
METRICS: dict[str, Meaning] = {
    "counterfactual": Meaning(
        "Counterfactual error",
        "Mean absolute difference between the model's counterfactual image and the true one.",
        "down",
    ),
    "strip": Meaning(
        "Error in the strip",
        "The same on the bottom rows alone, where the effect of the intervention shows and not the object that was moved.",
        "down",
    ),
    "outside": Meaning(
        "Change elsewhere",
        "How much the image changes where this intervention should change nothing. Beside it the change that a null intervention "
        "makes, and how far the two answers are apart, which is the part that is due to this intervention.",
        "down",
    ),
    "children": Meaning(
        "Predicted effect",
        "Error of the value that the latent causal model gives to an effect of what was set; no picture and no fitted probe is involved.",
        "down",
    ),
    "effectiveness": Meaning(
        "Effectiveness",
        "What an instrument reads from the counterfactual picture against the value it should show; the instrument's own error "
        "on true pictures stands beside it.",
        "down",
    ),
    "direction": Meaning(
        "Right direction",
        "Share of scenes in which what the instrument reads moved the way it truly would; beside it, R2 of the readings for the truth.",
        "up",
    ),
    "accuracy": Meaning(
        "Class kept",
        "Share of counterfactual pictures in which a classifier still reads the right class; its accuracy on true pictures "
        "stands beside it.",
        "up",
    ),
    "held": Meaning(
        "What stays still",
        "How far the reading of something that should not react moved, and how far it moves between true pictures.",
        "down",
    ),
    "non_descendants": Meaning(
        "Latents that stay still",
        "Largest change of any latent that is not an effect of what was set; a structural causal model leaves them exactly as they are.",
        "down",
    ),
    "composition": Meaning(
        "Composition",
        "Difference from the picture itself after encoding and decoding it without any intervention, once or several times over.",
        "down",
    ),
    "reversibility": Meaning("Reversibility", "Difference from the picture itself after an intervention and then its undoing.", "down"),
    "label_r2": Meaning(
        "Label recovery R2",
        "How well the value read by the encoder agrees with the label: 1 is perfect, 0 as good as the mean.",
        "up",
    ),
    "disentanglement": Meaning("Disentanglement (DCI)", "Whether every latent block serves a single factor.", "up"),
    "completeness": Meaning("Completeness (DCI)", "Whether every factor is held by a single latent block.", "up"),
    "informativeness": Meaning(
        "Informativeness (DCI)",
        "R2 of boosted trees that predict the factors from the latents, on images they were not fitted to.",
        "up",
    ),
    "mcc": Meaning(
        "Mean correlation (MCC)",
        "Mean absolute correlation of each factor with the latent block that the best one-to-one matching gives it.",
        "up",
    ),
    "order_right": Meaning("Causal order", "1 where no effect was found before its cause, else 0.", "up"),
    "wrong_edges": Meaning("Wrong edges", "Pairs of latents between which an edge is missing, too many, or the wrong way round.", "down"),
    "mixing": Meaning("Mixing", "How far what the latents were mixed by is off, latents in units of their standard deviation.", "down"),
    "expectation": Meaning(
        "Interventional mean",
        "Error of the mean of model samples under an intervention whose answer is known.",
        "down",
    ),
    "instrument": Meaning(
        "Instrument's own error",
        "What the instrument errs by on true test pictures: nothing measured with it can be told to be better.",
        "",
    ),
    "bits_per_byte": Meaning(
        "Bits per byte",
        "What a held-out byte of text costs the model on average; 8 is a guess among all. The standard error counts documents, not rows.",
        "down",
    ),
    "bits_per_token": Meaning("Bits per token", "What a held-out token that is scored costs the model on average.", "down"),
    "gap": Meaning(
        "Nats above the best",
        "How much more a scored token costs the model than the best predictor that the task allows, on the very same rows.",
        "down",
    ),
    "token_accuracy": Meaning("Next token right", "Share of scored tokens that are the likeliest one given those before them.", "up"),
    "null": Meaning(
        "Null intervention",
        "Share of tokens that come back as they were when nothing is set: exactly 1, or the noise does not explain the sequence.",
        "up",
    ),
    "takes": Meaning("The intervention takes", "Share of the positions that were set which hold what they were set to: exactly 1.", "up"),
    "before": Meaning(
        "Moved before it",
        "Share of tokens before the position that was set which differ: exactly 0, since causes come first.",
        "down",
    ),
    "after": Meaning(
        "Moved after it",
        "Share of later tokens that differ where another token was set: how far the model carries the change. Neither way is better.",
        "",
    ),
    "objective": Meaning(
        "Nats a token, by objective",
        "What a held-out token costs under an objective as it is trained. Objectives see different things: their figures do not compare.",
        "down",
    ),
    "pseudo": Meaning("Nats given all others", "What a token costs given all other tokens of its row; no probability of the row.", "down"),
    "spread": Meaning("Spread of the bound", "How far a row's bound, a token, differs between two draws of masks.", "down"),
    "row_right": Meaning("Rows all right", "Share of rows in which every scored token is the likeliest one.", "up"),
    "infill": Meaning(
        "Bits to fill in a span", "What a token of a hidden span costs with both sides seen; beside it with the left side alone.", "down"
    ),
    "earlier": Meaning(
        "Moved though filled in before",
        "Share of tokens that were filled in before the one that was set and differ: exactly 0, since causes come first.",
        "down",
    ),
    "later": Meaning(
        "Moved after it", "Share of tokens filled in later that differ where another token was set. Neither way is better.", ""
    ),
    "solved": Meaning("Rows solved", "Share of rows that are filled in so that the rules of their task hold.", "up"),
    "filled": Meaning("Tokens filled in right", "Share of the tokens filled in that are those of the row.", "up"),
    "calls": Meaning(
        "Calls of the network", "How often the network is asked for one row; beside it how many places are filled in.", "down"
    ),
    "order": Meaning(
        "Left to right",
        "Share of places filled in that follow the one before (local) or are the first still open (global); 1 is reading order.",
        "",
    ),
    "plan": Meaning(
        "Nats that steps cost",
        "What filling in several places at once loses a row, spent as planned from measured losses; beside it evenly over the steps.",
        "down",
    ),
    "statement": Meaning(
        "True statement found",
        "Share of items of which the true (or grammatical) statement is the likeliest; chance stands beside it.",
        "up",
    ),
    "frechet": Meaning(
        "Frechet distance",
        "How far the features of drawn pictures are from those of training pictures; beside it test pictures, and their tokens decoded.",
        "down",
    ),
    "class_accuracy": Meaning(
        "Class read from draws", "Share of drawn pictures in which a classifier reads the class that was asked for.", "up"
    ),
    "gumbel_mean": Meaning("Abducted noise, mean", "Mean of the Gumbel noise found for test rows, over all tokens of the vocabulary.", ""),
    "gumbel_std": Meaning("Abducted noise, sd", "Its standard deviation.", ""),
    "gumbel_ks": Meaning("Abducted noise, KS", "Largest gap between its distribution and the standard Gumbel law, 0 to 1.", "down"),
    "nll": Meaning("Nats a row", "What a held-out row costs the model on average, as a density in the columns' own units.", "down"),
    "row_gap": Meaning(
        "Nats above the best", "How much more a row costs the model than the equations behind the data, on the same rows.", "down"
    ),
    "share": Meaning(
        "Counterfactual error",
        "Root mean square of model less truth, as a share of how far the truth moves from the factual value: doing nothing scores 1.",
        "down",
    ),
    "wrong": Meaning("Counterfactuals that differ", "Share of rows whose counterfactual value is not the true one.", "down"),
    "back": Meaning("Null intervention", "Largest difference between a row and what its own noise gives back, over all columns.", "down"),
    "leak": Meaning("Seen without being above", "Largest change of a node's law when what is no cause of it changes: exactly 0.", "down"),
    "contribution": Meaning(
        "Intrinsic contribution",
        "Share of the variance of a column without effects that comes from the noise of the node named, all else shared.",
        "",
    ),
    "noise_std": Meaning(
        "Abducted noise, sd",
        "Standard deviation of the noise found for the test examples; a model of real numbers or pictures draws it with 1.",
        "",
    ),
    "noise_ks": Meaning("Abducted noise, KS", "Largest gap between its distribution and the standard normal, 0 to 1.", "down"),
    "noise_parents": Meaning(
        "Noise and parents",
        "Largest correlation of the noise with a cause: noise that depends on causes hides part of the effect.",
        "down",
    ),
}


def rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    """The figures of metrics.json in groups (title, rows), those first that a reader looks for first. Missing parts are left out."""
    if "rmse" in metrics:
        yield from _variables(metrics)
        return
    if "null" in metrics:
        yield from _sequences(metrics)
        return
    for factor, found in metrics.get("do", {}).items():
        yield f"do({factor})", list(_intervention(factor, found))
    whole = [Row("composition", _cycles(m), value, PIXEL) for m, value in metrics.get("composition", {}).get("mae", {}).items()]
    whole += [Row("reversibility", f"do({f}) and back", found.get("reversibility"), PIXEL) for f, found in metrics.get("do", {}).items()]
    yield "Axioms of the image", whole
    yield "Latents and labels", list(_latents(metrics))
    yield "Instruments and noise", list(_instruments(metrics))


def _variables(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    """Of a model of named numbers."""
    held, found = metrics.get("heldout", {}), []
    about = f"{held.get('rows', 0):,} held-out rows" + (" (a bound)" if held.get("likelihood") == "bound" else "")
    for name, metric in (("nll", "nll"), ("gap", "row_gap")):
        if name in held:
            found.append(Row(metric, about, held[name]["value"], "nat", {"standard error": held[name]["se"]}))
    yield "Likelihood", found
    for cause, below in metrics.get("do", {}).items():
        answers = []
        for name, one in below.items():
            if "share" in one:
                answers.append(Row("share", name, one["share"], "", {"root mean square": one["rmse"], "change": one["change"]}))
            else:
                answers.append(Row("wrong", name, one["wrong"], "", {"do nothing": one["nothing"]}))
        yield f"do({cause})", answers
    laws = [Row("back", "predict(abduct(x))", metrics.get("null"), ""), Row("leak", "all nodes", metrics.get("leak"), "", {"must be": 0.0})]
    yield "Laws", laws
    noise = []
    for name, one in metrics.get("noise", {}).items():
        noise += [Row("noise_std", name, one["std"]), Row("noise_ks", name, one["ks"])]
        if one.get("parent_correlation") is not None:
            noise.append(Row("noise_parents", name, one["parent_correlation"]))
    yield "Noise", noise
    shares = metrics.get("contributions", {})
    yield (
        "Where the variance comes from",
        [Row("contribution", f"{e} to {name}", part) for name in shares for e, part in shares[name].items()],
    )


def _sequences(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    held = metrics.get("heldout", {})
    about = f"{held.get('tokens', 0):,} held-out tokens" + (" (a bound)" if held.get("likelihood") == "bound" else "")
    rates = []
    for name, unit in (("bits_per_byte", "bit"), ("bits_per_token", "bit"), ("gap", "nat")):
        if name in held:
            rates.append(
                Row(name, about, held[name]["value"], unit, {"standard error": held[name]["se"]} if held[name]["se"] is not None else {})
            )
    if metrics.get("accuracy") is not None:
        rates.append(Row("token_accuracy", "scored tokens", metrics["accuracy"]))
    rates += [Row("row_right", "rows", metrics["exact"])] if "exact" in metrics else []
    yield "Likelihood", rates
    yield "Filling in", list(_filling(metrics))
    asked = "one position a batch of rows"
    known = {"takes": {"must be": 1.0}, "before": {"must be": 0.0}, "after": {}}
    known |= {"earlier": {"must be": 0.0}, "later": {}}  # of models that fill in
    axioms = [Row("null", "predict(abduct(x))", metrics["null"], "", {"must be": 1.0})]
    axioms += [Row(name, asked, metrics[name], "", beside) for name, beside in known.items() if metrics.get(name) is not None]
    yield "Axioms of interventions on a position", axioms
    noise, laws = metrics.get("noise", {}), {"mean": 0.5772, "std": 1.2825}
    beside = {name: {"standard Gumbel": laws[name]} if name in laws else {} for name in ("mean", "std", "ks") if name in noise}
    yield "Noise", [Row(f"gumbel_{name}", "all entries, pooled", noise[name], "", held) for name, held in beside.items()]


def _filling(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Of models that fill in and mix objectives."""
    for name, one in metrics.get("objectives", {}).items():
        yield Row("objective", name, one["value"], "nat", {"standard error": one["se"]})
    if "spread" in metrics:
        yield Row("spread", "a few rows", metrics["spread"], "nat")
    if "pseudo" in metrics:
        yield Row("pseudo", "a few rows", metrics["pseudo"]["value"], "nat", {"standard error": metrics["pseudo"]["se"]})
    if {"both", "left"} <= set(metrics.get("infill", {})):
        yield Row("infill", "both sides", metrics["infill"]["both"]["bits"], "bit", {"left side alone": metrics["infill"]["left"]["bits"]})
    if "sides" in metrics.get("infill", {}):
        yield Row("infill", metrics["infill"]["sides"], metrics["infill"]["bits"], "bit")
    if metrics.get("law", {}).get("solved") is not None:
        yield Row("solved", "draws", metrics["law"]["solved"], "", {"different ones": metrics["law"].get("distinct")})
    for way, one in metrics.get("unmasking", {}).items():
        if way == "plan":
            yield Row("plan", f"{len(one['counts'])} steps", one["nats"], "nat", {"evenly": one["nats_even"]})
            continue
        for name, metric, about in (("solved", "solved", way), ("right", "filled", way)):
            if one.get(name) is not None:
                yield Row(metric, about, one[name], "", {"rows all right": one["rows"]} if name == "right" and "rows" in one else {})
        yield Row("calls", way, one.get("calls"), "", {"places": one.get("places")})
        for name in ("local_2", "global_2"):
            if name in one:
                yield Row("order", f"{way}, {name.partition('_')[0]}, of two", one[name])
    stated = metrics.get("statements", {})
    if "accuracy" in stated:
        yield Row("statement", f"by {stated.get('scoring', 'likelihood')}", stated["accuracy"], "", {"chance": stated.get("chance")})
    for name, one in metrics.get("quality", {}).items():
        if name in ("frechet", "class_accuracy") and isinstance(one, Mapping):
            beside = {"test pictures": one.get("real"), "their tokens": one.get("tokens")}
            yield Row(name, "draws", one["value"], "", {key: value for key, value in beside.items() if value is not None})


def _cycles(count: str) -> str:
    return "1 null intervention" if count == "1" else f"{count} null interventions in a row"


def _beside(found: Mapping[str, Any], **names: str) -> dict[str, float | None]:
    return {label: found[name] for name, label in names.items() if name in found}


def _intervention(factor: str, found: Mapping[str, Any]) -> Iterator[Row]:
    if "mae" in found:
        baselines = _beside(found, copy="copy the factual image", not_propagated="do not propagate")
        yield Row("counterfactual", "whole image", found["mae"], PIXEL, baselines)
        if "grey" in found and "mae" in found["grey"]:
            beside = _beside(found["grey"], copy="copy the factual image", not_propagated="do not propagate", mae_p95="95th percentile")
            yield Row("counterfactual", "whole image", found["grey"]["mae"], "grey level", beside)
    for name, strip in found.get("strips", {}).items():
        beside = _beside(strip, copy="copy the factual image", not_propagated="do not propagate")
        yield Row("strip", f"{name} rows", strip["mae"], PIXEL, beside)
    if "outside" in found:
        beside = _beside(found["outside"], composition="null intervention", moved="between the two answers")
        yield Row("outside", "outside the strip", found["outside"]["change"], PIXEL, beside)
    for name, child in found.get("children", {}).items():
        yield Row("children", name, child["mae"], child["unit"], {"copy the factual value": child["copy"]})
    for name, tool in found.get("effectiveness", {}).items():
        beside = _beside(tool, floor="true image", copy="factual image", chance="chance")
        metric = "effectiveness" if "mae" in tool else "accuracy"
        yield Row(metric, f"{name} read from the image", tool.get("mae", tool.get("accuracy")), tool.get("unit", ""), beside)
        if "direction" in tool:
            yield Row("direction", f"{name} read from the image", tool["direction"], "", {"R2": tool["r2"]})
    for name, tool in found.get("held", {}).items():
        yield Row("held", f"{name} read from the image", tool["change"], tool["unit"], _beside(tool, floor="true image"))
    if "non_descendants_z" in found:
        yield Row("non_descendants", "largest change of z", found["non_descendants_z"])


def _latents(metrics: Mapping[str, Any]) -> Iterator[Row]:
    for name, value in metrics.get("label_r2", {}).items():
        yield Row("label_r2", name, value)
    dci = metrics.get("dci", {})
    for name in ("disentanglement", "completeness", "informativeness"):
        if name in dci:
            yield Row(name, "all factors", dci[name], "", {"the labels as latents": dci.get("labels", {}).get(name)})
    if "mcc" in metrics:
        yield Row("mcc", "block means", metrics["mcc"]["blocks"], "", {"single entries": metrics["mcc"]["codes"]})
    if found := metrics.get("latents", {}):
        yield Row("mcc", "latents", found["mcc"])
        yield Row("order_right", "latents", float(found["order"]))
        yield Row("wrong_edges", "context 0", float(found["wrong"]))
        yield Row("mixing", "largest entry", found["mixing"])
    for known in metrics.get("expectations", []):
        about = f"{known['effect']} given do({known['do']}={known['value']:g})"
        yield Row("expectation", about, known["error"], "", {"model": known["mean"], "truth": known["truth"]})


def _instruments(metrics: Mapping[str, Any]) -> Iterator[Row]:
    for name, tool in metrics.get("instruments", {}).items():
        if "mae" in tool:
            yield Row("instrument", name, tool["mae"], tool["unit"])
        else:
            yield Row("accuracy", f"{name}, true test pictures", tool["accuracy"])
    for name, found in metrics.get("noise", {}).items():
        yield Row("noise_std", name, found["std"])
        yield Row("noise_ks", name, found["ks"])
        if found.get("parent_correlation") is not None:
            yield Row("noise_parents", name, found["parent_correlation"])
