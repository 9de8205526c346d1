"""The rank of a process in the environments of Lightning, torchrun and Slurm."""

import pytest

from unfreeze.system.ranks import is_first_process, is_launched_externally

LAUNCHERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("environment", "first", "external"),
    [
        pytest.param({}, True, False, id="alone"),
        pytest.param({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2"}, True, False, id="Lightning, first"),
        pytest.param({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, False, False, id="Lightning, second"),
        pytest.param({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True, True, id="torchrun, first"),
        pytest.param(
            {**TORCHRUN, "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False, True, id="torchrun, second node"
        ),
        pytest.param(
            {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "RANK": "0"}, True, False, id="torchrun of one"
        ),
        pytest.param({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, True, True, id="Slurm, first"),
        pytest.param({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, False, True, id="Slurm, last"),
        pytest.param(
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, True, False, id="Slurm's shell"
        ),
        pytest.param({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, True, False, id="Slurm of one"),
    ],
)
def test_the_first_process(
    environment: dict[str, str], first: bool, external: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*LAUNCHERS, *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (is_first_process(), is_launched_externally()) == (first, external)
