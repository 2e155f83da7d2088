"""The output folder: made, or refused before any work."""

import pytest

from energydsl.io import output_folder


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    folder = output_folder(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b" and list(folder.iterdir()) == []
    assert output_folder(str(folder)) == folder


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_its_place_is_refused(tmp_path, below):
    (tmp_path / "taken").write_text("")
    with pytest.raises(
        ValueError, match=r"output folder '.*taken.*' cannot be written: .*Give a folder"
    ):
        output_folder(tmp_path / "taken" / below)


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        output_folder(tmp_path)
