"""One table for all that shows numbers: as text, in a terminal (rich), as HTML and as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table

_PATH_LENGTH = 26


@dataclass(frozen=True)
class Column:
    """A title, which a line feed breaks, and how numbers are written: a format specification or a function.

    Numbers stand to the right; a column of text has no `form`. HTML shows a path as code, shortened in its middle.
    """

    title: str
    form: str | Callable[[Any], str] | None = None
    is_path: bool = False

    def text(self, value: Any) -> str:
        """The value as this column writes it; texts stay as they are."""
        if isinstance(value, str) or self.form is None:
            return str(value)
        return self.form(value) if callable(self.form) else format(value, self.form)


@dataclass(frozen=True, repr=False)
class Table:
    """Columns and rows of values under a title; `foot` holds rows that sum them up, `notes` stand below.

    The first column names the rows. A value is a number, a text, None where there is nothing (shown as `missing`), or a
    pair of a value and a small text below it. Notebooks show HTML; `str` and the Python prompt show aligned text.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    notes: Sequence[str] = ()
    foot: Sequence[Sequence[Any]] = ()
    missing: str = ""

    def __post_init__(self) -> None:
        for row in (*self.rows, *self.foot):
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} values in a table of {len(self.columns)} columns: {row}")

    def without_empty_columns(self) -> "Table":
        """The same without the columns in which no row has a value."""
        used = [n for n in range(len(self.columns)) if any(_pair(row[n])[0] not in (None, "") for row in self.rows)]
        rows, foot = ([[row[n] for n in used] for row in rows] for rows in (self.rows, self.foot))
        return replace(self, columns=[self.columns[n] for n in used], rows=rows, foot=foot)

    def texts(self, rows: Sequence[Sequence[Any]] | None = None) -> list[list[str]]:
        """The cells of the rows, or of `rows`, as text; a small text follows in brackets."""
        shown = self.rows if rows is None else rows
        return [[f"{text} ({small})" if small else text for _, text, small in self._cells(row)] for row in shown]

    def __str__(self) -> str:
        head = [column.title.split("\n") for column in self.columns]
        height = max(map(len, head), default=1)
        lines = [list(line) for line in zip(*([""] * (height - len(title)) + title for title in head), strict=True)]
        lines += self.texts([*self.rows, *self.foot])
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        aligned = (
            [
                cell.ljust(width) if column.form is None else cell.rjust(width)
                for cell, width, column in zip(line, widths, self.columns, strict=True)
            ]
            for line in lines
        )
        body = ["  ".join(line).rstrip() for line in aligned]
        return "\n".join([*[self.title] * bool(self.title), *body, *self.notes]).replace("\u00a0", " ")

    __repr__ = __str__

    def __rich__(self) -> "rich.table.Table":
        import rich.box
        import rich.table
        import rich.text

        shown = rich.table.Table(title=self.title or None, caption="\n".join(self.notes) or None)
        shown.box, shown.padding, shown.show_edge = rich.box.SIMPLE_HEAD, (0, 1, 0, 0), False
        shown.title_justify = shown.caption_justify = "left"
        for column in self.columns:
            if column.form is None:
                longest = max(map(len, column.title.split("\n")))
                shown.add_column(column.title, overflow="fold", min_width=longest)
            else:
                shown.add_column(column.title, justify="right", no_wrap=True)
        for rows in (self.rows, self.foot):
            for cells in self.texts(rows):
                shown.add_row(*map(rich.text.Text, cells))
            shown.add_section()
        return shown

    def _repr_html_(self) -> str:
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return self.html().replace(">", f">{title}", 1) + "".join(map(paragraph, self.notes))

    def html(self, css_class: str = "numbers") -> str:
        """The table element, without title and notes."""
        head = "".join(f"<th scope='col'{_class_of(column)}>{escape(column.title)}</th>" for column in self.columns)
        parts = [f"<table class='{css_class}'><thead><tr>{head}</tr></thead>"]
        for tag, rows in (("tbody", self.rows), ("tfoot", self.foot)):
            lines = (f"<tr>{''.join(self._html_cells(row))}</tr>" for row in rows)
            parts += [f"<{tag}>", *lines, f"</{tag}>"] if rows else []
        return "\n".join([*parts, "</table>"])

    def _html_cells(self, row: Sequence[Any]) -> Iterator[str]:
        for place, (column, text, small) in enumerate(self._cells(row)):
            shown = escape(text)
            if column.is_path and text:
                title = f" title='{shown}'" if (short := shortened(text)) != text else ""
                shown = f"<code{title}>{escape(short)}</code>"
            below = f"<span class='note'>{escape(small)}</span>" if small else ""
            tag, scope = ("td", "") if place else ("th", " scope='row'")
            yield f"<{tag}{scope}{_class_of(column)}>{shown}{below}</{tag}>"

    def markdown(self) -> str:
        """The table in Markdown: title, rows and notes."""
        rule = ["---:" if column.form is not None else "---" for column in self.columns]
        lines = [[_markdown(column.title) for column in self.columns], rule]
        for row in (*self.rows, *self.foot):
            lines.append(
                [_markdown(text) + (small and f" <sub>{_markdown(small)}</sub>") for _, text, small in self._cells(row)]
            )
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([*[f"**{self.title}**"] * bool(self.title), body, *self.notes])

    def _cells(self, row: Sequence[Any]) -> Iterator[tuple[Column, str, str]]:
        for column, cell in zip(self.columns, row, strict=True):
            value, small = _pair(cell)
            text = self.missing if value is None else column.text(value)
            yield column, text, "" if small == text else small


def _pair(cell: Any) -> tuple[Any, str]:
    return cell if isinstance(cell, tuple) else (cell, "")


def _class_of(column: Column) -> str:
    return " class='number'" if column.form is not None else ""


def _markdown(text: str) -> str:
    """A text that stays within its cell, and no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def paragraph(text: str) -> str:
    """A sentence in HTML."""
    return f"<p>{escape(text)}</p>"


def percent(digits: int = 2) -> Callable[[float], str]:
    """A column's form for fractions in percent, whose sign stands in the title."""
    return lambda fraction: f"{100 * fraction:.{digits}f}"


def shortened(text: str, size: int = _PATH_LENGTH) -> str:
    """A long path without its middle, in at most `size` characters; most of them its head, which tells layers apart."""
    head = size * 2 // 3
    return text if len(text) <= size else f"{text[:head]}…{text[head + 1 - size :]}"
