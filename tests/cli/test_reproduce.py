"""What `lazyneuron reproduce` prints at its end: a few lines, every verdict, checks apart, and how many hold."""

import io
from dataclasses import replace

from rich.console import Console

from lazyneuron.cli.reproduce import _print_verdicts
from tests.pages.test_claims_table import verdict


def printed(*verdicts):
    console = Console(file=io.StringIO(), width=220)
    _print_verdicts(verdicts, console)
    return console.file.getvalue()


def test_the_few_lines_come_first_and_checks_apart():
    sparse = verdict(text="It grows sparse.", line="Few are active.", grade="halves", density=0.05, reported="0.027")
    dense = replace(sparse, on="vit", verdict="does not hold", grade="", density=0.4, reason="dense still")
    text = printed(
        sparse, dense, verdict(text="At most k.", is_check=True), verdict(text="Larger.", verdict="cannot tell")
    )
    few, claims, checks = (text.index(title) for title in ("in a few lines", "on these runs", "Checks of the code"))
    assert few < claims < checks < text.index("1 holds, 1 does not hold, 1 cannot tell; 1 of 1 check passes")
    assert "holds t5: density 0.05, halves" in text[few:claims]
    assert "does not hold vit: density 0.4" in text[few:claims]
    assert "dense still" in text[few:claims]
    assert ("Larger." in text[claims:checks], "At most k." in text[claims:checks]) == (True, False)
    assert "holds, halves" in text[claims:checks]


def test_each_claim_under_a_line_has_its_own_row():
    sparse = verdict(text="It grows sparse.", line="Few are active.", reported="0.027", reason="fine")
    every = replace(sparse, claim="c2", text="Every layer.", reported="0.24", verdict="cannot tell", reason="too few")
    text = printed(sparse, every)
    text = text[: text.index("on these runs")]
    assert (text.count("Few are active."), "fine" in text) == (1, False)
    places = [
        text.index(part) for part in ("Few are active.", "0.027", "holds t5", "0.24", "cannot tell t5", "too few")
    ]
    assert places[3] > places[2] > places[1] > places[0]
    assert text.index("It grows sparse.") < places[3] < text.index("Every layer.") < places[4]
    assert places[5] > places[3]


def test_nothing_but_what_is_there_is_printed():
    text = printed(verdict())
    assert ("few lines" in text, "Checks" in text, "1 holds" in text) == (False, False, True)
