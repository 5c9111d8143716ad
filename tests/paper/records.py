"""Records as runs leave them, few and by hand."""

from lazyneuron.records.record import Record


def density(step, values, split="eval", stack="", what="density"):
    place = {"recipe": "vit", "seed": 0, "step": step, "split": split, "stack": stack}
    return [
        Record(what=what, value=value, unit="fraction", layer=layer, site=f"{stack}{layer}", **place)
        for layer, value in enumerate(values)
    ]


def run(start, end, end_train=None):
    return density(0, start) + density(100, end) + density(100, end_train or end, "train") + density(100, end, "test")


def at_the_end(what, value):
    return Record(what=what, value=value, unit="", recipe="vit", seed=0, step=100, split="test")


def case(what, value, name, error=None, **more):
    return Record(what=what, value=value, unit="", recipe="study", seed=0, case=name, error=error, **more)


def verdict(claim, *by_seed):
    """The verdict on one `{run: records}` for each seed."""
    return claim.verdict("recipe", dict(enumerate(by_seed)))


def column(table, title):
    """The texts of a table's column."""
    assert table is not None
    place = [column.title.replace("\n", " ") for column in table.columns].index(title)
    return [row[place][0] if isinstance(row[place], tuple) else row[place] for row in table.rows]
