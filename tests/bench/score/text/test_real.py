"""lm-eval's own tasks on public data, without a hub."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.score.evaluate import score_cell
from moextend.bench.sequence import Scoring
from tests.bench.score.text.conftest import MakeTask

TASKS = {
    "piqa": ("piqa/piqa.yaml", "piqa", "training_split: null"),
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc", ""),
    "lambada_openai": ("lambada/lambada_openai.yaml", "lambada_openai", ""),
    "blimp_anaphor_number_agreement": ("blimp/anaphor_number_agreement.yaml", "blimp", ""),
}


@pytest.fixture
def real_text(real_data: Path) -> Path:
    """The folder of real lm-eval data."""
    if not (real_data / "lm_eval").is_dir():
        pytest.skip(f"no lm_eval in {real_data} (set MOEXTEND_REAL_DATA)")
    return real_data / "lm_eval"


@pytest.mark.realdata
@pytest.mark.parametrize("name", TASKS)
def test_own_yaml_of_lm_eval_on_a_local_folder(
    name: str, real_text: Path, workspace: Path, model: Any, make_task: MakeTask, tmp_path: Path
) -> None:
    yaml, data, more = TASKS[name]
    spec = find_spec("lm_eval")
    assert spec and spec.submodule_search_locations
    include = Path(spec.submodule_search_locations[0]) / "tasks" / yaml
    (workspace / "tasks" / "lm" / f"{name}.yaml").write_text(
        f"include: {include}\ntask: {name}\ndataset_path: {real_text / data}\n{more}\n"
    )
    cell = score_cell(
        model,
        make_task(name),
        weights="w",
        folder=tmp_path / "p",
        workspace=workspace,
        scoring=Scoring(limit=12),
    )
    assert cell.n == 12 and 0 <= cell.value <= 100 and cell.stderr is not None
