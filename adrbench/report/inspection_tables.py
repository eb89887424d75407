"""What ADR does to the labels of a run: the sentences and tables of an inspection."""

from collections.abc import Iterable, Iterator, Sequence

from adrbench.report.cell_text import cut
from adrbench.report.tables import Cell, Column, Row, Table
from adrbench.results.inspection import InspectRecord, LabeledImage

#: With more classes, the matrix of mean labels is only in the record.
MOST_CLASSES = 20
#: The number of images of each kind, and of epochs, in tables.
MOST_IMAGES, NUM_EPOCHS = 8, 6


def describe(record: InspectRecord) -> Iterator[str]:
    """Yield the sentences above the tables."""
    num_epochs = len(record.schedule)
    further = record.steps - record.epoch * (record.total_steps // num_epochs)
    steps = f" and {further:,} steps" if further else ""
    yield f"{cut(record.run)}: {record.selection} checkpoint"
    yield f"teacher: the average after {record.epoch} of {num_epochs} epochs{steps}"
    of = "" if record.n == record.num_train else f" of {record.num_train:,}"
    yield f"images: {record.n:,}{of} training images, clean and not augmented"
    yield f"temperature {record.temperature:.3f}, interpolation factor {record.interpolation:.3f}"
    yield (
        f"rectified labels: {100 * record.mean_label_probability:.1f} % for the true class on "
        f"average, mean entropy {record.mean_entropy:.3f} nats"
    )
    share = 100 * record.num_disagreeing / record.n
    counts = f"{record.num_disagreeing:,} of {record.n:,} images ({share:.1f} %)"
    yield f"the teacher disagrees with the labels of {counts}"


def distinct_inspections(records: Iterable[object]) -> list[InspectRecord]:
    """Return the inspections among `records`, the newest of each checkpoint and set of images."""
    newest: dict[tuple[str, int], InspectRecord] = {}
    for record in records:
        if isinstance(record, InspectRecord):
            key = (record.checkpoint_sha256, record.n)
            if key not in newest or newest[key].created < record.created:
                newest[key] = record
    return list(newest.values())


def source_of(record: InspectRecord) -> str:
    """Return what identifies an inspection: its checkpoint and number of images."""
    return f"{record.checkpoint_sha256} {record.n}"


def tabulate(record: InspectRecord) -> list[Table]:
    """Return the tables of a record; those without rows are left out."""
    tables = [
        tabulate_means(record),
        tabulate_pairs(record),
        tabulate_images(
            record, record.moved, "Labels that moved furthest: lowest probability of the true class"
        ),
        tabulate_images(
            record, record.disagreeing, "Teacher disagrees with the label: most confident first"
        ),
        tabulate_schedule(record),
    ]
    return [table for table in tables if table is not None and table.rows]


def tabulate_means(record: InspectRecord) -> Table | None:
    """Return the mean rectified label of each class; None for many classes."""
    classes = range(record.num_classes)
    if record.num_classes > MOST_CLASSES:
        return None
    true_class = Column(key="class", label="true class")
    values = [_number(str(index), decimals=1) for index in classes]
    rows: list[dict[str, Cell]] = [
        {true_class.key: name_class(record, index)}
        | {str(other): 100 * record.mean_labels[index][other] for other in classes}
        for index in classes
        if record.class_counts[index]
    ]
    return _table("Mean rectified label of each class (%)", (true_class, *values), rows)


def tabulate_pairs(record: InspectRecord) -> Table:
    """Return the pairs of classes that share most mass."""
    columns = (
        Column(key="first", label="class A"),
        Column(key="second", label="class B"),
        _number("there", "B in labels of A"),
        _number("back", "A in labels of B"),
        _number("mass", "mean"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "first": name_class(record, pair.first),
            "second": name_class(record, pair.second),
            "there": 100 * pair.first_to_second,
            "back": 100 * pair.second_to_first,
            "mass": 100 * pair.mass,
        }
        for pair in record.pairs
    ]
    return _table("Most confusable pairs: mean probability (%)", columns, rows)


def tabulate_images(record: InspectRecord, images: Sequence[LabeledImage], title: str) -> Table:
    """Return images with their labels and what the teacher predicts."""
    columns = (
        Column(key="image", label="image", align="right"),
        Column(key="label", label="label"),
        Column(key="predicted", label="teacher"),
        _number("probability", "true class (%)", decimals=1),
        _number("confidence", "confidence (%)", decimals=1),
    )
    rows: list[dict[str, Cell]] = [
        {
            "image": image.index if image.position is None else image.position,
            "label": name_class(record, image.label),
            "predicted": name_class(record, image.predicted),
            "probability": 100 * image.label_probability,
            "confidence": 100 * image.predicted_probability,
        }
        for image in images[:MOST_IMAGES]
    ]
    return _table(title, columns, rows)


def tabulate_schedule(record: InspectRecord) -> Table:
    """Return the annealed values of some epochs, that of the checkpoint among them."""
    columns = (
        Column(key="epoch", label="epoch", align="right"),
        _number("temperature", decimals=3),
        _number("interpolation", "interpolation factor", decimals=3),
        Column(key="mark", label=""),
    )
    last = len(record.schedule)
    spaced = {1 + round(k * (last - 1) / (NUM_EPOCHS - 1)) for k in range(NUM_EPOCHS)}
    rows: list[dict[str, Cell]] = [
        {
            "epoch": one.epoch,
            "temperature": one.temperature,
            "interpolation": one.interpolation,
            "mark": "this checkpoint" if one.epoch == record.epoch else " ",
        }
        for one in record.schedule
        if one.epoch in spaced | {record.epoch}
    ]
    return _table("Annealing", columns, rows)


def name_class(record: InspectRecord, index: int) -> str:
    """Return the number of a class, with its name where it has one."""
    number, name = str(index), record.class_names[index] if record.class_names else ""
    return number if name in ("", number) else f"{number} {name}"


def _number(key: str, label: str | None = None, decimals: int = 2) -> Column:
    return Column(key=key, label=label or key, role="value", align="right", decimals=decimals)


def _table(title: str, columns: tuple[Column, ...], rows: Sequence[dict[str, Cell]]) -> Table:
    return Table(
        name="inspect",
        title=title,
        context={},
        columns=columns,
        rows=tuple(Row(cells=cells) for cells in rows),
    )
