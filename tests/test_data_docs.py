"""The example of another data set in docs/data.md, as somebody with an installed package would use it."""

import re
import shutil
from pathlib import Path

import warm
from conftest import TINY
from facelm.data.w300.index import index_faces

ROOT = Path(__file__).resolve().parents[1]
FIVE = "name: five\npoints: 5\nmirror: [[0, 1], [3, 4]]\nouter_eyes: [0, 1]\n"


def blocks(section):
    """The first Python and YAML of a section of docs/data.md."""
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8").partition(section)[2]
    return [re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("python", "yaml")]


def test_another_data_set_is_a_class_and_a_config(drawn_root, tmp_path):
    code, config = blocks("## Another data set")
    assert len(code.splitlines()) < 40
    (tmp_path / "named.py").write_text(code)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/named.yaml").write_text(config.replace("facelm.data.named", "named"))
    (tmp_path / "five.yaml").write_text(FIVE)
    for split, name, count in (("train", "train", 8), ("common", "test", 3)):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for face in index_faces(drawn_root, split)[:count]:
            points = face.landmarks_image[[36, 45, 30, 48, 54]].round(2).ravel()
            shutil.copy(face.image, tmp_path / "faces" / name / ("_".join(map(str, points)) + face.image.suffix))
    how = ["data=named", "data.root=faces", "landmarks=file", "landmarks.file=five.yaml", "trainer.max_epochs=1"]
    command = ["-m", "facelm.train", "--config-dir", "conf", "experiment=own", *how, *TINY]
    done = warm.run([*command, "hydra.run.dir=run"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| test | 3 |" in (tmp_path / "run/report/table.md").read_text(encoding="utf-8")
    assert (tmp_path / "run/trained.txt").read_text().count("train/") == 8 - 1
