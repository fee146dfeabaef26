import json

import pytest

from facelm.cli import main
from facelm.predict.onnx_check import onnx_facts, open_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "new folder" / "flächen 1.onnx"
    assert main(["export", "--checkpoint", str(trained_run), "--out", str(path)]) == 0
    return path


class TestExport:
    def test_a_run_is_exported_and_the_check_is_printed(self, trained_run, tmp_path, capsys):
        assert main(["export", "--checkpoint", str(trained_run), "--out", str(tmp_path / "a.onnx")]) == 0
        said = capsys.readouterr().out
        assert "ONNX Runtime against the Predictor on 32 drawn faces: 100.00 % of 2,176 points agree to 0.01 px" in said
        assert "NME in its metadata: common" in said
        assert "hrnetv2_tiny, crops of 64 px, codec subpixel" in said

    def test_the_nme_of_the_run_s_report_is_in_the_file(self, exported, trained_run):
        summary = json.loads((trained_run / "report" / "summary.json").read_text())
        known = json.loads(onnx_facts(open_onnx(exported))["nme"])
        assert known == {name: pytest.approx(row["nme"], abs=1e-3) for name, row in summary["subsets"].items()}

    def test_mistakes(self, trained_run, tmp_path, capsys):
        (tmp_path / "notes.pth").write_text("hello")
        for checkpoint, out, message in [
            (tmp_path / "absent.ckpt", "a.onnx", "absent.ckpt"),
            ("hrnetv2_w19", "a.onnx", "no weights at 'hrnetv2_w19'"),
            (tmp_path / "notes.pth", "a.onnx", "damaged or no weight file"),
            (trained_run, "a.pth", "should end in .onnx"),
        ]:
            assert main(["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / out)]) == 1
            assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("*.onnx"))


class TestInfo:
    def test_an_onnx_file_says_what_it_is(self, exported, capsys):
        assert main(["info", str(exported)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        for text in ("crops ['N', 64, 64, 3] tensor(uint8)", "scheme ibug68", "crop_scale 1.25", "nme {", '"subpixel"'):
            assert text in said

    def test_foreign_files(self, tmp_path, capsys):
        (tmp_path / "a.onnx").write_text("hello")
        for name, message in [("a.onnx", "damaged or no ONNX file"), ("b.onnx", "no ONNX file")]:
            assert main(["info", str(tmp_path / name)]) == 1
            assert message in capsys.readouterr().err
