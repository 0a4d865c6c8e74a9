"""The one walk: links are followed, what programs keep is passed over, what cannot be read is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.data import find_images, load_folder
from edgecnn.data.walk import files_below, is_passed_over, listing
from edgecnn.documents import sha256_of_file
from edgecnn.errors import UserError
from tests.conftest import encode, picture
from tests.data.drawn import all_names, draw, not_utf8, total, two_classes

KEPT_BY_PROGRAMS = (
    *(".ipynb_checkpoints", ".thumbnails", ".git", "@eaDir", "__MACOSX", "#recycle", "lost+found", "$RECYCLE.BIN"),
    *("System Volume Information", "__pycache__", "@Recycle"),
)


def below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder).files]


@pytest.mark.parametrize("name", KEPT_BY_PROGRAMS)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_what_programs_keep_is_passed_over_at_any_depth(tmp_path: Path, name: str, depth: int) -> None:
    two_classes(tmp_path, 8)
    hidden = [tmp_path / name, tmp_path / "good" / name, tmp_path / "good" / "more" / name / "deeper"][depth]
    draw(hidden, 3, first=500)
    data = load_folder(tmp_path)
    assert (data.classes, total(data), data.problems) == (("crack", "good"), 16, ())
    assert not any(name in path for path in below(tmp_path))


@pytest.mark.parametrize("name", ["._000.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", ".hidden.png"])
def test_files_that_programs_leave_are_no_images(tmp_path: Path, name: str) -> None:
    two_classes(tmp_path, 8)
    (tmp_path / "good" / name).write_bytes(b"\x00\x05\x16\x07")
    data = load_folder(tmp_path)
    assert (total(data), data.problems) == (16, ())


def test_names_are_not_passed_over_for_what_they_begin_with() -> None:
    assert not any(map(is_passed_over, ("@home", "#1", "$5", "thumbs.png", "lost", "_good", "good.")))


def test_linked_classes_folders_and_files_are_read(tmp_path: Path) -> None:
    two_classes(tmp_path / "kept", 8)
    draw(tmp_path / "kept" / "more", 5, first=300)
    root = tmp_path / "data"
    (root / "good").mkdir(parents=True)
    (root / "crack").symlink_to(tmp_path / "kept" / "crack")
    (root / "good" / "more").symlink_to(tmp_path / "kept" / "more")
    (root / "good" / "all").symlink_to(os.path.relpath(tmp_path / "kept" / "good", root / "good"))
    (root / "good" / "one.png").symlink_to(tmp_path / "kept" / "more" / "300.png")
    (tmp_path / "linked").symlink_to(root)
    for folder in (root, tmp_path / "linked"):
        data = load_folder(folder)
        assert total(data) == 22
        assert {"crack/000.png", "good/more/300.png", "good/all/100.png", "good/one.png"} <= all_names(data)
        wanted = [item.sha256 for item in (*data.train, *data.val, *data.test)]
        assert set(find_images(folder, wanted)) == set(wanted)


def test_circles_end(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", 8)
    (root / "good" / "self").symlink_to(root / "good")
    (root / "good" / "up").symlink_to("..")
    (root / "crack" / "top").symlink_to("/")
    (root / "crack" / "root").symlink_to(root)
    draw(tmp_path / "beside", 3, first=300)
    (tmp_path / "beside" / "back").symlink_to(root)
    (root / "good" / "beside").symlink_to(tmp_path / "beside")
    data = load_folder(root)
    assert (total(data), data.problems) == (19, ())
    assert len(below(root)) == 19


def test_a_linked_class_that_links_back_does_not_read_the_others(tmp_path: Path) -> None:
    """By where it really lies, `back` holds no folder that it lies in; by the way that led there, it does."""
    root = two_classes(tmp_path / "data", 8)
    draw(tmp_path / "elsewhere", 8, first=300)
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    data = load_folder(root)
    assert (total(data), data.problems) == (24, ())


def test_a_folder_that_two_links_lead_to_is_read_once(tmp_path: Path) -> None:
    root = two_classes(tmp_path, 8)
    (root / "good" / "a").symlink_to(root / "good" / "real")
    (root / "good" / "z").symlink_to(root / "good" / "real")
    draw(root / "good" / "real", 3, first=300)
    data = load_folder(root)
    assert total(data) == 19
    assert "good/real/300.png" in all_names(data)


def test_a_link_into_another_class_makes_conflicts_that_are_said(tmp_path: Path) -> None:
    root = two_classes(tmp_path, 8)
    draw(root / "spot", 8, first=300)
    draw(root / "spot" / "some", 2, first=400)
    (root / "good" / "some").symlink_to(root / "spot" / "some")
    data = load_folder(root)
    assert {problem.name for problem in data.problems} == {
        *("good/some/400.png", "good/some/401.png", "spot/some/400.png", "spot/some/401.png")
    }


def test_links_to_nothing_are_refused_or_left_out(tmp_path: Path) -> None:
    root = two_classes(tmp_path, 8)
    (root / "good" / "gone.png").symlink_to("nowhere.png")
    (root / "good" / "circle").symlink_to("circle")
    (root / "good" / "notes.txt").symlink_to("nowhere.txt")
    with pytest.raises(UserError, match=r"2 unusable images \(good/circle: cannot be opened .*good/gone.png: a"):
        load_folder(root)
    data = load_folder(root, skip_unreadable=True)
    assert [problem.name for problem in data.problems] == ["good/circle", "good/gone.png"]
    assert "nowhere.png, which is not there" in data.problems[1].reason
    assert total(data) == 16


def test_a_class_that_leads_nowhere_is_never_left_out(tmp_path: Path) -> None:
    """The network would have one output fewer."""
    root = two_classes(tmp_path, 8)
    (root / "spot").symlink_to("nowhere")
    for skip in (False, True):
        with pytest.raises(UserError, match=r"spot: a link to nowhere, which is not there \(it stands where a class"):
            load_folder(root, skip_unreadable=skip)


def test_a_folder_that_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = two_classes(tmp_path, 8)
    draw(root / "good" / "locked", 3, first=300)
    opened = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr("edgecnn.data.walk.os.scandir", scandir)
    with pytest.raises(UserError, match=r"good/locked: this folder cannot be opened \(Permission denied\)"):
        load_folder(root)
    data = load_folder(root, skip_unreadable=True)
    assert ([problem.name for problem in data.problems], total(data)) == (["good/locked"], 16)


def test_placeholders_of_icloud_and_shortcuts_are_no_images_and_are_said(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "crack" / ".900.jpg.icloud").write_bytes(b"bplist00")
    (tmp_path / "crack" / "901.png.lnk").write_bytes(b"L")
    (tmp_path / "good" / ".notes.txt.icloud").write_bytes(b"bplist00")
    (tmp_path / ".notes.txt.icloud").write_bytes(b"bplist00")
    with pytest.raises(UserError, match=r"2 unusable images \(.*crack/900.jpg: lies in iCloud alone: download it"):
        load_folder(tmp_path)
    data = load_folder(tmp_path, skip_unreadable=True)
    assert {problem.name for problem in data.problems} == {"crack/900.jpg", "crack/901.png.lnk"}
    assert total(data) == 20


def test_a_class_that_is_a_shortcut_is_never_left_out(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "spot.lnk").write_bytes(b"L")
    with pytest.raises(
        UserError, match=r"spot.lnk: a shortcut of Windows.*\(it stands where a class or split should\)"
    ):
        load_folder(tmp_path, skip_unreadable=True)


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    root = two_classes(tmp_path, 8)
    os.mkfifo(root / "good" / "live.jpg")
    with pytest.raises(UserError, match=r"good/live.jpg: no file and no folder, but a pipe"):
        load_folder(root)


@pytest.mark.parametrize(("raw", "said"), [(b"Pr\xfcf 1.jpg", r"Pr\\xfcf 1.jpg"), (b"a\nb.png", r"a\\nb.png")])
def test_names_that_are_no_text_are_refused_escaped_or_left_out(tmp_path: Path, raw: bytes, said: str) -> None:
    root = two_classes(tmp_path, 8)
    not_utf8(root / "good", raw).write_bytes(encode(picture(999)))
    with pytest.raises(UserError, match=f"1 unusable image .good/{said}: its name .*: rename it") as error:
        load_folder(root)
    str(error.value).encode()
    assert "\n" not in str(error.value)
    data = load_folder(root, skip_unreadable=True)
    assert (len(data.problems), total(data)) == (1, 16)


def test_folders_whose_name_is_no_text(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "data", 8)
    draw(not_utf8(root / "good", b"k\xe4se"), 2, first=300)
    with pytest.raises(UserError, match=r"good/k\\xe4se: its name is not UTF-8"):
        load_folder(root)
    assert total(load_folder(root, skip_unreadable=True)) == 16
    draw(not_utf8(root, b"sp\xe4ne"), 8, first=400)
    with pytest.raises(UserError, match=r"data/sp\\xe4ne: its name is not UTF-8: rename it \(it stands where a class"):
        load_folder(root, skip_unreadable=True)
    two_classes(not_utf8(tmp_path, b"teil\xe9"), 8)
    with pytest.raises(UserError, match=r"teil\\xe9: its name is not UTF-8: rename it"):
        load_folder(not_utf8(tmp_path, b"teil\xe9"))


@given(
    above=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    links=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=10),
)
@settings(max_examples=40)
def test_whatever_links_there_are_each_file_is_found_once(
    tmp_path_factory: pytest.TempPathFactory, above: list[int], links: list[tuple[int, int]]
) -> None:
    folders = [tmp_path_factory.mktemp("tree")]
    for number, parent in enumerate(above):
        folders.append(folders[min(parent, number)] / f"f{number}")
        folders[-1].mkdir()
    for number, folder in enumerate(folders):
        (folder / f"{number}.png").touch()
    for number, (place, target) in enumerate(links):
        (folders[place % len(folders)] / f"a_link{number}").symlink_to(folders[target % len(folders)])
    found = files_below(folders[0])
    assert found.problems == ()
    assert sorted(path.name for path in found.files) == sorted(f"{number}.png" for number in range(len(folders)))
    assert not any(path.parent.is_symlink() for path in found.files)


def test_a_listing_is_of_one_folder(tmp_path: Path) -> None:
    two_classes(tmp_path, 2)
    (tmp_path / "a.jpg").touch()
    found = listing(tmp_path, tmp_path)
    assert [path.name for path in found.folders] == ["crack", "good"]
    assert [path.name for path in found.files] == ["a.jpg"]


def test_images_are_found_through_links_for_verify(tmp_path: Path) -> None:
    two_classes(tmp_path / "kept", 3)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "kept")
    wanted = [sha256_of_file(path) for path in files_below(tmp_path / "kept").files]
    assert set(find_images(tmp_path / "data", wanted)) == set(wanted)
