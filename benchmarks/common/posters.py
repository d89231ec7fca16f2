"""MovieLens-100K joined to a folder of film posters by title, as the files of a ``table`` source with an image column.

    python -m benchmarks.common.posters POSTERS OUT

POSTERS holds ``posters.csv`` (movie_id, title as MovieLens-1M writes it: "Matrix, The (1999)") and for each one an
image, MOVIE_ID.jpg or .png. OUT gets ``items.parquet``, ``events.parquet`` and ``run.toml``, which `conrec run` takes.
Printed: how many of the items have a poster.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.config import DataConfig
from conrec.logs.sources import Loaded, load

__all__ = ["join_posters", "normal_title", "poster_of", "read_posters", "write_table"]

ARTICLES = "the|a|an|le|la|les|l'|il|lo|el|los|las|der|die|das|un|une"
_YEAR = re.compile(r"\((\d{4})\)\s*$")
TOML = """[data]
source = "table"
events = "events.parquet"
items = "items.parquet"

[data.columns]
feedback = "feedback"

[data.item_columns]
text = "text"
category = "category"
image = "image"
"""


def normal_title(title: str) -> tuple[str, str]:
    """A title brought to one form, and its year ("" where it has none).

    Other titles in brackets, accents, punctuation and the place of the article do not count.

    >>> normal_title("Matrix, The (1999)") == normal_title("The Matrix (1999)") == ("matrix", "1999")
    True
    >>> normal_title("Postino, Il (The Postman) (1994)")
    ('postino', '1994')
    """
    found = _YEAR.search(title)
    year = found[1] if found else ""
    plain = re.sub(r"\([^)]*\)", " ", title[: found.start()] if found else title)
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode().lower().strip()
    plain = re.sub(rf",\s*(?:{ARTICLES})$", "", plain)
    plain = re.sub(rf"^(?:{ARTICLES})\s+", "", plain).replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "", plain), year


def read_posters(folder: Path) -> dict[str, str]:
    """Movie id to title of the posters whose image is there."""
    with (folder / "posters.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {row["movie_id"]: row["title"] for row in rows if poster_of(folder, row["movie_id"]) is not None}


def poster_of(folder: Path, movie: str) -> Path | None:
    """The image of a movie id."""
    return next((path for end in ("jpg", "png") if (path := folder / f"{movie}.{end}").is_file()), None)


def join_posters(titles: list[str], posters: dict[str, str]) -> list[str | None]:
    """For each title the movie id of its poster: the same normal title and year, else the year before or after."""
    known: dict[tuple[str, str], str] = {}
    for movie, title in posters.items():
        known.setdefault(normal_title(title), movie)
    found: list[str | None] = []
    for title in titles:
        name, year = normal_title(title)
        near = [year, str(int(year) - 1), str(int(year) + 1)] if year else [""]
        found.append(next((known[name, one] for one in near if name and (name, one) in known), None))
    return found


def write_table(loaded: Loaded, folder: Path, out: Path) -> int:
    """Write items.parquet (absolute paths of posters), events.parquet and run.toml; how many items have a poster."""
    joined = join_posters(loaded.items["title"].to_pylist(), read_posters(folder))
    paths = [None if movie is None else str(poster_of(folder.resolve(), movie)) for movie in joined]
    out.mkdir(parents=True, exist_ok=True)
    image = pa.array(paths, pa.string())
    items = loaded.items.set_column(loaded.items.column_names.index("image"), "image", image)
    pq.write_table(items, out / "items.parquet")
    pq.write_table(loaded.events.select(["user_id", "item_id", "timestamp", "feedback"]), out / "events.parquet")
    (out / "run.toml").write_text(TOML, encoding="utf-8")
    return sum(path is not None for path in paths)


def main() -> None:
    """Join, write and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("posters", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", type=Path, default=None, help="where MovieLens-100K is, or is fetched to")
    given = parser.parse_args()
    loaded = load(DataConfig(cache=given.cache))
    count = write_table(loaded, given.posters, given.out)
    print(json.dumps({"items": loaded.items.num_rows, "with_poster": count, "out": str(given.out)}))


if __name__ == "__main__":
    main()
