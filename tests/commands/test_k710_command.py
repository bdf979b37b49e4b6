"""``uniformerv2 k710 build``: files or folders in, lists and report out."""

from __future__ import annotations

import json

from uniformerv2.cli import main

HEADER = "label,youtube_id,time_start,time_end,split\n"
ROWS = {
    "k400_train.csv": "yoga,aaaaaaaaaaa,0,10,train\nyoga,val60000000,0,10,train\n",
    "k400_val.csv": "abseiling,val40000000,0,10,val\n",
    "k600_val.csv": "abseiling,val60000000,0,10,val\n",
    "k700_val.csv": "zumba,val70000000,0,10,val\n",
}


def write_lists(folder):
    folder.mkdir(exist_ok=True)
    for name, rows in ROWS.items():
        (folder / name).write_text(HEADER + rows)
    return [
        *("--k400", str(folder / "k400_train.csv"), str(folder / "k400_val.csv")),
        *("--k600", str(folder / "k600_val.csv")),
        *("--k700", str(folder / "k700_val.csv")),
    ]


def test_several_files_a_set(tmp_path, capsys):
    words = write_lists(tmp_path / "lists")
    assert main(["k710", "build", *words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "out: 1 training clips of 1 ids, 3 val clips" in printed
    assert printed.endswith(f"Written to {tmp_path / 'out'}\n")
    assert (
        (tmp_path / "out/train.csv").read_text().splitlines()[1].startswith("k400/train/aaaaaaaaaaa_000000_000010.mp4,")
    )
    assert len((tmp_path / "out/classes.txt").read_text().splitlines()) == 710


def test_json_and_file_names(tmp_path, capsys):
    words = write_lists(tmp_path / "lists")
    pattern = "{source}/{id}.mp4"
    assert main(["k710", "build", *words, "--out", str(tmp_path / "out"), "--file-name", pattern, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["leaked"] == {"k400 train": 1}
    assert report["folder"] == str(tmp_path / "out")
    assert "k400/aaaaaaaaaaa.mp4," in (tmp_path / "out/train.csv").read_text()


def test_wrong_use(tmp_path, capsys):
    words = write_lists(tmp_path / "lists")
    out = ["--out", str(tmp_path / "out")]
    assert main(["k710", "build", *words[:-1], str(tmp_path / "gone.csv"), *out]) == 2
    assert f"There is no file or folder {tmp_path / 'gone.csv'}." in capsys.readouterr().err
    (tmp_path / "lists/k700_val.csv").write_text(HEADER)
    assert main(["k710", "build", *words, *out]) == 1
    assert "k700 has no val list" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
