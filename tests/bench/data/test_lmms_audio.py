"""The sound tasks of the package against lmms-eval's own, as they are installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from moextend.bench.data.lmms import Function, find
from moextend.bench.task import find_task

pytestmark = pytest.mark.skipif(
    find_spec("lmms_eval") is None, reason="needs lmms-eval's YAMLs: pip install --no-deps lmms-eval"
)
THEIRS = {
    "librispeech-clean": "librispeech_test_clean",
    "librispeech-other": "librispeech_test_other",
    "common-voice-en": "common_voice_15_en",
    "common-voice-fr": "common_voice_15_fr",
    "fleurs-en": "fleurs_en",
    "clotho-aqa": "clotho_aqa_test",
    "clotho-asqa": "clotho_asqa_test_v2",
    "vocalsound": "vocalsound_test",
    "mmau-mini": "mmau_test_mini",
    **{f"air-bench-{part}": f"air_bench_foundation_{part}" for part in ("sound", "music", "speech")},
    **{f"air-bench-chat-{part}": f"air_bench_chat_{part}" for part in ("sound", "music", "speech", "mixed")},
    "openhermes-audio": "openhermes",
    "alpaca-audio": "alpaca_audio",
    "wavcaps": "wavcaps",
}
TRAINED = ("librispeech-clean", "librispeech-other")
"""Their data come from OpenSLR's own data set, which has training splits; lmms-eval's copy has none."""


@pytest.mark.parametrize(("name", "theirs"), THEIRS.items())
def test_data_prompt_and_length_are_lmms_evals(name: str, theirs: str) -> None:
    task, (path, config) = find_task(name, Path("nowhere")), find(theirs, None)
    assert task.data is not None
    if name not in TRAINED:
        # The owner of the copies changed in July 2026.
        assert task.data.path.partition("/")[2] == config["dataset_path"].partition("/")[2]
        assert task.data.config == config.get("dataset_name")
        assert task.data.test == config["test_split"]
    tokens = config.get("generation_kwargs", {}).get("max_new_tokens", task.max_new_tokens)
    assert task.max_new_tokens == tokens
    extra = config["lmms_eval_specific_kwargs"]["default"]
    assert task.prompt.endswith((extra["pre_prompt"] + extra["post_prompt"]).strip())
    code = (path.parent / "utils.py").read_text(encoding="utf-8")
    assert f'doc["{task.columns.audio}"]' in code, "the column of the sounds"
    if task.scorer.startswith("wer"):
        words = task.prompt.removeprefix("<audio>\n")
        assert words in code, "their code has the words of the prompt"
        assert name in TRAINED or f'doc["{task.columns.answer}"]' in code
    elif isinstance(config["doc_to_target"], str):
        assert config["doc_to_target"] == task.columns.answer
    metrics = " ".join(str(entry["metric"]) for entry in config["metric_list"])
    assert ("gpt_eval" in metrics) == (task.needs == "judge")
    assert isinstance(config["doc_to_visual"], Function)
