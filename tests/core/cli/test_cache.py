from decodekit import default_model


def test_cache_shows_checks_and_clears(run, tmp_path, monkeypatch):
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(default_model, "gguf_file", lambda: "some.gguf")
    monkeypatch.setattr(
        default_model,
        "_write_model",
        lambda source, folder: (folder / "config.json").write_bytes(bytes(3_000_000)),
    )
    assert "not there" in run("cache").stdout

    config = default_model.default_model() / "config.json"
    assert "whole, 3 MB" in run("cache").stdout

    config.write_bytes(b"1" * 3_000_000)
    damaged = run("cache")
    assert damaged.exit_code == 2
    assert "decodekit cache clear" in damaged.stderr

    assert "3 MB are free again" in run("cache", "clear").stdout
    assert not config.exists()


def test_cache_shows_and_clears_kernels_and_what_benchmarks_converted(run, tmp_path, monkeypatch):
    monkeypatch.setenv("DECODEKIT_CACHE_DIR", str(tmp_path))
    for name, megabytes in {"kernels/one.pt2": 2, "bench/engine-1/model.bin": 4, "mine/notes.txt": 1}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(megabytes * 1_000_000))
    shown = run("cache").stdout
    assert "kernels: 1 of compile=True, 2 MB" in shown
    assert "bench: converted for other engines, 4 MB" in shown
    assert "6 MB are free again" in run("cache", "clear").stdout
    assert {path.name for path in tmp_path.iterdir()} - {"lock"} == {"mine"}
    assert "benchmarks" in run("cache", "--help").stdout
