def test_a_package_is_written_and_the_next_steps_are_told(run, tmp_path):
    result = run("new", "processor", "soft_cap", "--into", tmp_path)

    assert result.exit_code == 0
    assert "decodekit_soft_cap/soft_cap.py" in result.stdout
    assert f"cd {tmp_path}/decodekit-soft-cap\n" in result.stdout.replace("  ", "")
    assert (tmp_path / "decodekit-soft-cap" / "pyproject.toml").is_file()


def test_what_can_not_be_made_is_one_line(run, refused, tmp_path):
    (tmp_path / "decodekit-soft-cap").mkdir()

    assert "is there already" in refused(run("new", "processor", "soft_cap", "--into", tmp_path))
    nowhere = tmp_path / "file" / "folder"
    nowhere.parent.write_text("")
    assert "choose another folder with --into" in refused(run("new", "processor", "mild", "--into", nowhere))
    assert "Did you mean 'processor'" in refused(run("new", "procesor", "soft_cap", "--into", tmp_path))
