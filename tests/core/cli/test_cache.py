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
