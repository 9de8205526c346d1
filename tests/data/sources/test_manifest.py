"""Tables of images: supported formats, and errors about others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.photos import save_photo
from unfreeze.data.sources.columns import Columns
from unfreeze.data.sources.manifest import manifest_source
from unfreeze.data.sources.source import ImageSource
from unfreeze.errors import UnfreezeError

Write = Callable[..., Path]
ROWS = "image,label\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a table."""

    def make(content: str | bytes, name: str = "photos.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def names(source: ImageSource) -> list[str]:
    return [source.images.name(index) for index in range(len(source.images))]


def refusal_of(path: Path, **columns: object) -> str:
    with pytest.raises(UnfreezeError) as refusal:
        manifest_source(path, columns=Columns(**columns))  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_delimiters_line_ends_and_marks_are_seen(write: Write, delimiter: str, newline: str, bom: bytes) -> None:
    text = ROWS.replace(",", delimiter).replace("\n", newline)
    source = manifest_source(write(bom + text.encode()))
    assert source.name == "photos"
    assert names(source) == ["a.jpg", "b.jpg", "c.jpg"]
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 1, 0]
    assert source.labels.dtype == np.int64
    assert source.splits.tolist() == ["train"] * 3
    assert source.groups is None


def test_quoted_cells_and_blank_lines(write: Write) -> None:
    source = manifest_source(write('image,label\n\n"a, b.jpg","a ""big"" dog"\nb.jpg, cat \n\n'))
    assert names(source) == ["a, b.jpg", "b.jpg"]
    assert source.classes == ('a "big" dog', "cat")


def test_cells_are_text(write: Write) -> None:
    assert manifest_source(write("image,label\n007,1e3\n1.50,NA\n")).classes == ("1e3", "NA")
    assert names(manifest_source(write("image,label\n007,1e3\n1.50,NA\n"))) == ["007", "1.50"]


def test_whole_numbers_sort_by_number(write: Write) -> None:
    source = manifest_source(write("image,label\na,10\nb,9\nc,-1\nd,10\n"))
    assert source.classes == ("-1", "9", "10")
    assert source.labels.tolist() == [2, 1, 0, 2]


def test_parquet_has_numbers_with_gaps_and_well_known_names_in_any_case(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"Filename": ["a", "b", "c"], "Class": [3.0, 10.0, 3.0], "group_id": [7, None, 7], "pixels": [[1], [2], [3]]}
    )
    frame.write_parquet(tmp_path / "table")
    source = manifest_source(tmp_path / "table")
    assert source.classes == ("3", "10")
    assert source.task == "Class"
    assert source.groups is not None
    assert source.groups[0] == source.groups[2] != source.groups[1]


def test_splits_of_any_spelling(write: Write) -> None:
    values = ["train", "Training", "VAL", "valid", "validation", "dev", "test", "Testing "]
    rows = "".join(f"{i}.jpg,{i % 2},{value}\n" for i, value in enumerate(values))
    source = manifest_source(write(f"image,label,subset\n{rows}"))
    assert source.splits.tolist() == ["train"] * 2 + ["val"] * 4 + ["test"] * 2
    ignored = manifest_source(write(f"image,label,subset\n{rows}"), columns=Columns(split=False))
    assert set(ignored.splits.tolist()) == {"train"}


def test_several_label_columns_are_several_tasks(write: Write) -> None:
    path = write("image,species,age\na,cat,1\nb,dog,2\nc,dog,1\n")
    source = manifest_source(path, columns=Columns(label=["species", "age"]))
    assert [(task.name, task.classes, task.labels.tolist()) for task in source.tasks] == [
        ("species", ("cat", "dog"), [0, 1, 1]),
        ("age", ("1", "2"), [0, 1, 0]),
    ]


def test_an_image_without_a_group_is_a_group_of_its_own(write: Write) -> None:
    source = manifest_source(write("image,label,group\na,x,p\nb,y,\nc,x,p\nd,y,\n"))
    assert source.groups is not None
    assert source.groups[0] == source.groups[2]
    assert len(set(source.groups.tolist())) == 3


def test_paths_start_from_the_table_the_root_or_home(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there", "home"):
        save_photo(tmp_path / folder / "sub" / "a.png", size=(len(folder), 3))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = f"image,label\nsub/a.png,x\nsub\\a.png,x\n~/sub/a.png,y\n{tmp_path}/there/sub/a.png,x\n"
    path = write(rows, "here/photos.csv")
    assert [manifest_source(path).images.read(index).image.width for index in range(3)] == [4, 4, 5]
    source = manifest_source(path, root=tmp_path / "there")
    assert [source.images.read(index).image.width for index in range(2)] == [5, 4]
    assert source.notes == ("2 rows name an image again; each image counts once",)
    (tmp_path / "home" / "photos.csv").write_text("image,label\nsub/a.png,x\nb,y\n")
    assert manifest_source("~/photos.csv").images.read(0).image.width == 4


def test_a_file_whose_name_has_a_backslash_keeps_it(write: Write, tmp_path: Path) -> None:
    save_photo(tmp_path / "a\\b.png")
    assert names(manifest_source(write("image,label\na\\b.png,x\nc.png,y\n")))[0] == "a\\b.png"


def test_an_image_that_stands_in_the_table_again_counts_once(write: Write) -> None:
    source = manifest_source(write(ROWS + "a.jpg,cat\n./a.jpg,cat\n"))
    assert len(source.images) == len(source.labels) == len(source.splits) == 3
    assert source.notes == ("2 rows name an image again; each image counts once",)
    assert manifest_source(write(ROWS)).notes == ()


@pytest.mark.parametrize(("key", "first", "second"), [("split", "train", "test"), ("group", "p1", "p2")])
def test_an_image_in_two_splits_or_groups_is_refused(write: Write, key: str, first: str, second: str) -> None:
    rows = f"image,label,{key}\na.jpg,x,{first}\nb.jpg,y,{first}\nimg/../a.jpg,x,{second}\n"
    text = rf"data\.columns\.{key}: 1 images have several {key}s, such as 'a\.jpg': .* in rows 2, 4; want one {key}"
    with pytest.raises(UnfreezeError, match=text):
        manifest_source(write(rows))


def test_a_name_that_two_columns_have_is_refused(write: Write) -> None:
    with pytest.raises(UnfreezeError, match=r"has several columns 'label'; rename all but one"):
        manifest_source(write("image,label,label\na.jpg,x,y\nb.jpg,y,x\n"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty; want a header"),
        (b"\xef\xbb\xbf\n \n", "is empty; want a header"),
        (b"image,label\n", "no rows in"),
        (b"image,label\n\n,\n", "no rows in"),
        (b"image,label\na.jpg,x\nb,c.jpg,y\n", "line 3 has 3 cells and the header 2"),
        (b'image,label\n"a.jpg,x\nb.jpg,y\n', "put cells that have a delimiter or a quote"),
        (b"image,label\na.jpg,caf\xe9\n", "line 2 of"),
        ("image,label\na.jpg,x\n".encode("utf-16"), "is not text in UTF-8"),
        (b"PK\x03\x04rest", "is a workbook or an archive; save the sheet as CSV UTF-8"),
        (b"\x1f\x8brest", "is compressed; unpack it"),
        (b"PAR1rest", "is not a complete Parquet file"),
        (b"PAR1", "is not a complete Parquet file"),
    ],
)
def test_what_is_no_table_is_refused(write: Write, content: bytes, text: str) -> None:
    message = refusal_of(write(content))
    assert message.startswith("data.csv: ")
    assert text in message


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "can't read" in refusal_of(tmp_path / "gone.csv")
    assert "no such file" in refusal_of(tmp_path / "gone.csv")
    assert f"type data=imagefolder data.root={tmp_path}" in refusal_of(tmp_path)


def test_a_root_that_is_no_folder_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match=r"data.root: no folder '.*gone'; want the one that the table's paths"):
        manifest_source(write(ROWS), root=tmp_path / "gone")


@pytest.mark.parametrize(
    ("content", "columns", "text"),
    [
        ("x,y\n1,2\n", {}, "data.columns.image: none of the columns is called image, path, file, filename"),
        ("x,y\n1,2\n", {}, "type data.columns.image=<column>. Columns of the table: x, y"),
        ("image,y\n1,2\n", {}, "data.columns.label: none of the columns is called label, class"),
        (ROWS, {"label": "species"}, "data.columns.label: no column 'species'. Columns of the table: image, label"),
        (ROWS, {"label": ["label", "age"]}, "data.columns.label: no column 'age'"),
        (ROWS, {"split": "part"}, "data.columns.split: no column 'part'"),
        (ROWS, {"group": "patient"}, "data.columns.group: no column 'patient'"),
        (ROWS + "d.jpg,\n,cat\ne.jpg,  \n", {}, "data.columns.image: 1 of 6 cells of 'image' are empty: row 6; fill"),
        (ROWS + "d.jpg,\ne.jpg,  \n", {}, "data.columns.label: 2 of 5 cells of 'label' are empty: rows 5, 6; fill"),
        (ROWS + "x.jpg\n" * 14, {}, "rows 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 and 4 more; fill"),
        ("image,label,split\na,x,train\nb,y,\n", {}, "data.columns.split: 1 of 2 cells of 'split' are empty: row 3"),
        ("image,label,split\na,x,train\nb,y,tset\n", {}, "data.columns.split: 'tset' in row 3 of 'split' is no split"),
        ("image,label,split\na,x,val\nb,y,test\n", {}, "data.columns.split: no row of 'split' is train"),
        ("image,label,split\na,x,train\nb,y,train\nc,z,val\n", {}, "data.columns.label: val has a class 'z'"),
        (ROWS + "./a.jpg,dog\n", {}, "1 images have several labels, such as 'a.jpg': 'cat' and 'dog' in rows 2, 5"),
        (
            "image,label,split,group\na,x,train,p\nb,y,train,q\nc,y,test,p\nd,y,test,p\n",
            {},
            "data.columns.group: 1 groups of 'group' are in several splits: 'p' has 1 in train, 2 in test. Fix the",
        ),
    ],
)
def test_what_the_table_says_wrong_is_refused(
    write: Write, content: str, columns: dict[str, object], text: str
) -> None:
    assert text in refusal_of(write(content), **columns)


def test_columns_that_are_no_text_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"image": [[1], [2]], "label": ["x", "y"]}).write_parquet(tmp_path / "table.parquet")
    assert "data.columns.image: column 'image' holds List(Int64); want text" in refusal_of(tmp_path / "table.parquet")
