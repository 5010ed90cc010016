"""``import-perceiver`` and ``export-perceiver``."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from perceiver_policy.model import PerceiverIO
from perceiver_policy.pretrained import read_metadata
from training.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.PerceiverConfig(
        num_latents=4,
        d_latents=16,
        d_model=16,
        num_self_attends_per_block=1,
        num_cross_attention_heads=1,
        vocab_size=20,
        max_position_embeddings=6,
        num_labels=3,
    )
    transformers.PerceiverForSequenceClassification(config).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, "one line"
    return error


def test_there_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["import-perceiver", str(folder), "--out", str(ours)]) == 0
    assert f"PerceiverIO.from_pretrained('{ours}')" in capsys.readouterr().out
    assert read_metadata(ours) == {"imported": "theirs"}
    assert main(["export-perceiver", str(ours), "--out", str(back)]) == 0
    assert (
        f"transformers.PerceiverForSequenceClassification.from_pretrained('{back}')"
        in capsys.readouterr().out
    )
    ids = torch.arange(6)[None]
    with torch.no_grad():
        expected = transformers.PerceiverForSequenceClassification.from_pretrained(folder)(ids).logits
        again = transformers.PerceiverForSequenceClassification.from_pretrained(back)(ids).logits
        torch.testing.assert_close(PerceiverIO.from_pretrained(ours)(ids), expected, atol=1e-6, rtol=0)
    assert torch.equal(again, expected)


def test_as_deepmind(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, back = str(tmp_path / "ours"), str(tmp_path / "back")
    assert main(["import-perceiver", str(folder), "--out", ours, "--compat", "deepmind"]) == 0
    assert PerceiverIO.from_pretrained(ours).config.encoder.activation == "gelu_tanh"
    assert "encoder.empty_attention is 'zeros'" in refusal(capsys, "export-perceiver", ours, "--out", back)
    assert main(["export-perceiver", ours, "--out", back, "--ignore-differences"]) == 0


def test_a_place_that_is_taken_is_refused_before_the_checkpoint_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    error = refusal(capsys, "import-perceiver", str(tmp_path / "nowhere"), "--out", str(tmp_path))
    assert "holds notes.txt, which no export does" in error
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_bad_input(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert "nowhere does not exist" in refusal(capsys, "import-perceiver", str(tmp_path / "nowhere"), *out)
    (tmp_path / "evil.pickle").write_bytes(pickle.dumps({"a": np.load}))
    evil = refusal(capsys, "import-perceiver", str(tmp_path / "evil.pickle"), *out)
    assert "calls for numpy.load; refused" in evil
    unknown = ["import-perceiver", str(tmp_path / "evil.pickle"), *out, "--model", "perceiver-io-flw"]
    assert "did you mean perceiver-io-flow" in refusal(capsys, *unknown)
    assert "lacks config.yaml" in refusal(capsys, "export-perceiver", str(folder), *out)
    assert not (tmp_path / "out").exists()
