"""MIND: news shown on Microsoft News, clicked or passed over; also any log of impressions in its format.

Format: learn.microsoft.com/azure/open-datasets/dataset-microsoft-news (F. Wu et al., ACL 2020). Two files of tabs
without a header or quotes: ``behaviors.tsv`` (impression, user, time as "11/15/2019 8:55:22 AM", clicks before,
impressions as "N123-1 N456-0") and ``news.tsv`` (news, category, subcategory, title, abstract, address, and two columns
of entities). The folder holds the two, or folders that each hold both (MINDsmall_train and MINDsmall_dev), which are
joined. The clicks before an impression have no times and are not read. The zone of the times is not stated: they are
taken as UTC.

Rule: ``click`` +1 and ``skip`` (shown and not clicked) 0. That gives no negatives, and a run needs some: set
``data.feedback.events = { skip = -1 }`` to take what was passed over for a dislike, which is a weak sign. Impressions
without a label, as in MINDlarge_test, are refused and counted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import DataError
from conrec.logs.catalogue import clean_items
from conrec.logs.counts import Counts
from conrec.logs.files import Raw, TextFormat, read_raw
from conrec.logs.sources.base import Description, Loaded, Source, find_files, hash_files, own_folder, rule_or
from conrec.logs.sources.rows import join_files, made_from
from conrec.logs.validation import clean_events

__all__ = ["SOURCE", "files", "iso_moments", "load"]

NAME = "mind"
RULE = FeedbackRule(events={"click": 1, "skip": 0})
FILES = (("behaviors.tsv", "news.tsv"),)
MOMENT = r"^\d{1,2}/(?P<day>\d{1,2})/\d{4} \d{1,2}:\d{2}:\d{2} [AP]M$"
BEHAVIOURS = ("impression", "user_id", "time", "history", "impressions")
NEWS = ("item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


def files(config: DataConfig) -> list[Path]:
    """The files that `load` would read, behaviours first; empty where there are none."""
    if config.folder is None or not config.folder.expanduser().is_dir():
        return []
    found = _found(config.folder.expanduser())
    return [path for role in zip(*found, strict=True) for path in role]


def load(config: DataConfig) -> Loaded:
    """Each news item of each impression as an event, and news with their categories and abstracts.

    Raises:
        ConfigError: no folder is configured.
        DataError: a file is missing or damaged, or no impression has a label.
    """
    folder = own_folder(config, NAME, " and ".join(FILES[0]))
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=f"data.folder = {folder}")
    found = _found(folder)
    if not found:
        raise DataError(
            "neither this folder nor one in it has both files", where=str(folder), expected=" and ".join(FILES[0])
        )
    behaviours, news = zip(*found, strict=True)
    own = config.model_copy(
        update={"feedback": rule_or(config, RULE), "timestamp_unit": "iso", "category_separator": "|"}
    )
    columns = ItemColumns(category="category", description="abstract")
    items, item_counts = clean_items(join_files([_news(path) for path in news]), columns, own)
    raw = join_files([_events(path) for path in behaviours])
    events, event_counts = clean_events(raw, EventColumns(event="event"), own, items)
    return Loaded(NAME, events, items, Counts(event_counts, item_counts), hash_files([*behaviours, *news]))


def iso_moments(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Times as "11/15/2019 8:55:22 AM" in ISO 8601 and UTC, text [rows]; what is no such time stays as it is.

    >>> iso_moments(pa.array(["11/15/2019 8:55:22 AM", "2/30/2019 8:55:22 AM"])).to_pylist()
    ['2019-11-15T08:55:22Z', '2/30/2019 8:55:22 AM']
    """
    text = pc.utf8_trim_whitespace(values)
    day = pc.struct_field(pc.extract_regex(text, MOMENT), "day").cast(pa.int64())
    moment = pc.strptime(text, format="%m/%d/%Y %I:%M:%S %p", unit="s", error_is_null=True)
    true = pc.fill_null(pc.equal(pc.day(moment), day), False)  # strptime makes 2 March of 30 February
    return pc.if_else(true, pc.strftime(moment, "%Y-%m-%dT%H:%M:%SZ"), values)


def _found(folder: Path) -> list[tuple[Path, ...]]:
    """Behaviours and news of the folder itself, else of each folder in it, in the order of their names."""
    if own := find_files(folder, FILES):
        return [own]
    inner = sorted(one for one in folder.iterdir() if one.is_dir())
    return [found for one in inner if (found := find_files(one, FILES))]


def _events(path: Path) -> Raw:
    """One row for each news item that an impression showed, by the line of the impression."""
    raw = read_raw(path, TextFormat("\t", BEHAVIOURS, quoting=False), ("user_id", "time", "impressions"))
    shown = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(raw.table["impressions"].combine_chunks()))
    line = pc.list_parent_indices(shown)
    token = pc.list_flatten(shown)
    label = pc.replace_substring_regex(token, r"^.*-", "")
    event = pc.if_else(pc.equal(label, "1"), "click", pc.if_else(pc.equal(label, "0"), "skip", label))
    moment = iso_moments(raw.table["time"])
    table = pa.table(
        {
            "user_id": raw.table["user_id"].take(line),
            "item_id": pc.replace_substring_regex(token, r"-[^-]*$", ""),
            "timestamp": moment.take(line),
            "event": event,
        }
    )
    return made_from(raw, table, np.asarray(line, dtype=np.int64))


def _news(path: Path) -> Raw:
    """item_id, title, abstract, and category with subcategory."""
    raw = read_raw(
        path, TextFormat("\t", NEWS, quoting=False), ("item_id", "category", "subcategory", "title", "abstract")
    )
    category = pc.binary_join_element_wise(raw.table["category"], raw.table["subcategory"], "|")
    return raw.with_table(raw.table.select(["item_id", "title", "abstract"]).append_column("category", category))


SOURCE = Source(
    Description(
        NAME,
        "news shown on Microsoft News, November 2019, clicked or passed over, with titles, categories and abstracts",
        "small: 8.6 million impressions of single news, 94,057 users, 65,238 news; large: 15 million lists",
        "positive: clicked; neutral: shown and not clicked; negative only with data.feedback.events = { skip = -1 }",
        "Microsoft Research License Terms",
        "msnews.github.io, into a folder of yours (data.folder)",
        "data.feedback.events = { skip = -1 }, horizon_days = 1 (the log has a week)",
    ),
    load,
    None,
    files,
    RULE,
)
