"""A table says the same as text, in a terminal, as HTML and as Markdown, whatever its cells hold."""

from html.parser import HTMLParser

import pytest
from rich.console import Console

from lazyneuron.records.table import Column, Table, percent, shortened

TABLE = Table(
    columns=[Column("site", is_path=True), Column("activation"), Column("density\n%", percent(1)), Column("k", ",d")],
    rows=[["encoder.0.mlp", "relu", (0.0312, "3.0-3.3"), 1536], ["b|<i>[red]", None, None, 7]],
    foot=[["mean", "", 0.5, "all"]],
    title="Sites & more",
    notes=["one note", "two < three"],
    missing="n/a",
)
LINES = [
    ["encoder.0.mlp", "relu", "3.1 (3.0-3.3)", "1,536"],
    ["b|<i>[red]", "n/a", "n/a", "7"],
    ["mean", "", "50.0", "all"],
]


class Cells(HTMLParser):
    """Tags with their attributes, and the texts between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.found += [data] if data.strip() else []


def test_text_is_aligned_with_numbers_to_the_right_and_titles_over_their_columns():
    assert str(TABLE).split("\n") == [
        "Sites & more",
        "                                 density",
        "site           activation              %      k",
        "encoder.0.mlp  relu        3.1 (3.0-3.3)  1,536",
        "b|<i>[red]     n/a                   n/a      7",
        "mean                                50.0    all",
        "one note",
        "two < three",
    ]
    assert repr(TABLE) == str(TABLE)


def test_the_texts_of_the_cells():
    assert TABLE.texts() == LINES[:2]
    assert TABLE.texts(TABLE.foot) == LINES[2:]


def test_a_terminal_shows_every_cell_as_it_is():
    console = Console(width=90)
    with console.capture() as seen:
        console.print(TABLE)
    lines = [line.split() for line in seen.get().splitlines()]
    assert ["b|<i>[red]", "n/a", "n/a", "7"] in lines
    assert ["mean", "50.0", "all"] in lines
    assert lines[-1] == ["two", "<", "three"]


def test_html_escapes_what_it_shows_and_names_each_row():
    page = Cells(TABLE._repr_html_())
    assert page.found[:6] == ["Sites & more", "site", "activation", "density\n%", "k", "encoder.0.mlp"]
    assert page.found[-2:] == ["one note", "two < three"]
    assert "b|<i>[red]" in page.found
    assert [attributes.get("scope") for tag, attributes in page.tags if tag == "th"] == ["col"] * 4 + ["row"] * 3
    assert [attributes for tag, attributes in page.tags if tag == "td"][1] == {"class": "number"}
    long = "model.decoder.layers.11.feed_forward.very_long"
    code = dict(Cells(Table([Column("site", is_path=True)], [[long]]).html()).tags)["code"]
    assert code == {"title": long}
    assert Cells(Table([Column("site", is_path=True)], [[long]]).html()).found[-1] == shortened(long)


def test_markdown_keeps_each_cell_in_its_column():
    lines = TABLE.markdown().split("\n")
    assert lines[0] == "**Sites & more**"
    assert lines[2:5] == [
        "| site | activation | density % | k |",
        "| --- | --- | ---: | ---: |",
        "| encoder.0.mlp | relu | 3.1 <sub>3.0-3.3</sub> | 1,536 |",
    ]
    assert lines[5] == r"| b\|&lt;i>[red] | n/a | n/a | 7 |"
    assert lines[-3:] == ["one note", "", "two < three"]


def test_columns_without_a_value_are_left_out():
    table = Table(
        [Column("a"), Column("b", ".1f"), Column("c")], [["x", None, ""], ["y", None, None]], foot=[["", 1.0, ""]]
    )
    assert [column.title for column in table.without_empty_columns().columns] == ["a"]
    assert table.without_empty_columns().foot == [[""]]
    zeros = Table([Column("a"), Column("b", ".1f")], [["x", 0.0]])
    assert len(zeros.without_empty_columns().columns) == 2


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1 values in a table of 2 columns"):
        Table([Column("a"), Column("b")], [["only"]])


def test_a_table_without_rows_or_columns_can_be_shown():
    assert str(Table([Column("a"), Column("b")], [])) == "a  b"
    assert str(Table([], [])) == ""
    assert "<tbody>" not in Table([Column("a")], []).html()


@pytest.mark.parametrize("text", ["short", "a" * 26, "model.decoder.layers.11.feed_forward"])
def test_a_long_path_loses_its_middle(text):
    short = shortened(text)
    assert len(short) == min(26, len(text))
    assert short.startswith(text[:17])
    assert short.endswith(text[-8:]) or short == text
