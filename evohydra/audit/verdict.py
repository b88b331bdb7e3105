"""The audit in words, which follow from its numbers."""

from collections.abc import Iterator

from evohydra.audit.texts import KINDS
from evohydra.files import Plain

HOW = {"length": "at twice the length", "wording": "with another prompt"}
FORM = KINDS[:-1]  # kinds of errors that are none of content
MUCH = 0.05  # share of answers at the limit that is worth a warning


def verdict(audit: Plain, gain: Plain) -> list[str]:
    """In sentences, what the gain of the winner over the best source on test survives and what not.

    audit: as `audited` gives it, with the reloaded checkpoint where that was asked. gain: that of summary.json.
    """
    if gain["difference"] is None:
        return ["There is no gain to be audited: the winner or every source has failed on test."]
    return [
        *_holds(audit, gain),
        *_rest(audit, gain),
        *_forms(audit),
        *_limits(audit),
        *_reloaded(audit),
        *audit["not_checked"],
    ]


def _holds(audit: Plain, gain: Plain) -> Iterator[str]:
    whole = f"The gain of {_interval(gain)}"
    if gain["high"] < 0:
        yield f"{whole} is a loss: the winner is worse than the best source, {gain['best_source']}."
        return
    if gain["low"] <= 0:
        yield f"{whole} is not told from none by this test split, so that there is little to be audited."
        return
    checks = {HOW[part]: audit[part] for part in HOW if audit.get(part, {}).get("difference") is not None}
    words = {True: "holds", False: "vanishes", None: "is not settled"}
    for survived, verb in words.items():
        if told := [f"{how} ({_found(each)})" for how, each in checks.items() if _survived(each) is survived]:
            yield f"{whole} {verb} {' and '.join(told)}."
    for part, how in HOW.items():
        for name, reason in audit.get(part, {}).get("not_checked", {}).items():
            if not any(told in reason for told in ("no texts", "write none")):  # which is said of the whole benchmark
                yield f"It was not checked {how} on {name}: {reason}."


def _survived(each: Plain) -> bool | None:
    """Whether there still is a gain; None where that is not settled. The same answers have the same gain.

    Of fewer examples than the gain has: their own interval may reach 0.
    """
    if each["unchanged"] or each["low"] > 0:
        return True
    return False if each["difference"] <= 0 else None


def _found(each: Plain) -> str:
    if each["unchanged"]:
        return "no answer reached the limit"
    before = "" if each.get("before") is None else f"; without the change {each['before']:+.3f} on these"
    interval = f"95 % {each['low']:+.3f} to {each['high']:+.3f}"
    return f"{each['difference']:+.3f}, {interval}, {each['n']} examples{before}"


def _rest(audit: Plain, gain: Plain) -> Iterator[str]:
    tenths = audit.get("tenths")
    if tenths and gain["low"] > 0:
        ends = f"({tenths['smallest']:+.3f} to {tenths['largest']:+.3f})"
        if tenths["above_0"] == tenths["of"]:
            yield f"The gain survives leaving out any tenth of the examples {ends}."
        else:
            left = f"{tenths['above_0']} of {tenths['of']} leave one"
            yield f"Without some tenths of the examples there is no gain: {left} {ends}."
    for name, near in (audit.get("duplicates") or {}).items():
        for what, told in (("search examples", near.get("search")), ("few-shot examples", near.get("shots"))):
            if told and told["near"]:
                yield f"Of {name}'s test examples {told['near']} of {told['of']} are nearly the same as {what}."
            elif told:
                yield (
                    f"No test example of {name} is nearly the same as one of the {what} (the nearest two share "
                    f"{told['largest']:.0%} of their 8-grams)."
                )
        if without := near.get("gain_without"):
            yield f"Without them its gain is {_interval(without)}."
    rows = audit.get("difficulty") or ()
    if hard := [row for row in rows if row["solved_by"] == 0]:
        yield f"The winner solves {hard[0]['winner']:.0%} of the {hard[0]['examples']} examples that no source solves."
    if easy := [row for row in rows if row["solved_by"]]:
        count = sum(row["examples"] for row in easy)
        solved = sum(row["examples"] * row["winner"] for row in easy) / count
        yield f"The winner fails on {1 - solved:.0%} of the {count} that a source solves."


def _forms(audit: Plain) -> Iterator[str]:
    """How many answers of both models are wrong in form: a gain in form is no gain in skill."""
    for name, models in (audit.get("errors") or {}).items():
        told = {model: sum(counts.get(kind, 0) for kind in FORM) for model, counts in models.items()}
        if len(told) == 2 and any(told.values()):
            winner, source = told["winner"], told[audit["best_source"]]
            yield (
                f"{winner} of the winner's {models['winner']['of']} answers to {name}, and {source} of "
                f"{audit['best_source']}'s, are wrong in form (cut, empty, in another language, no number, or the "
                "right number in other words)."
            )


def _limits(audit: Plain) -> Iterator[str]:
    on_test = audit["at_the_limit"].get("test", {})
    cut = [f"{name} {each['share']:.0%}" for name, each in on_test.items() if each["share"] >= MUCH]
    if cut:
        yield f"Answers on test that were cut at the limit of tokens: {', '.join(cut)}."


def _reloaded(audit: Plain) -> Iterator[str]:
    for name, each in (audit.get("reload") or {}).items():
        if reason := each.get("not_checked"):
            yield f"The checkpoint read anew was not scored on {name}: {reason}."
        elif each["other_answers"]:
            yield (
                f"The checkpoint read anew scores {each['score']:.3f} on {name}, the model of the search "
                f"{each['before']:.3f} ({each['other_answers']} of {each['of']} answers differ)."
            )
        else:
            yield f"The checkpoint read anew gives the same {each['of']} answers to {name}."


def _interval(gain: Plain) -> str:
    return f"{gain['difference']:+.3f} (95 % {gain['low']:+.3f} to {gain['high']:+.3f})"
