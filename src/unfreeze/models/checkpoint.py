"""Checkpoints: loaded offline, from plain values only, without a configuration."""

from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError
from unfreeze.models.classifier import CHECKPOINT_SCHEMA, Classifier, rebuild_classifier
from unfreeze.models.state_dicts import entries_under
from unfreeze.models.weights import CHECKPOINT_KEY, NETWORK_PREFIX, load_plain
from unfreeze.results.run_directory import RunDirectory, check_checkpoint


class UntrustedRepoError(UnfreezeError):
    """Refusal of a checkpoint whose network comes from a repository that is not trusted.

    Args:
        message: Error message.
        repo: Name of the repository.
    """

    def __init__(self, message: str, repo: str) -> None:
        super().__init__(message)
        self.repo = repo


def load_classifier(path: str | Path, *, trust_repo: bool = False) -> Classifier:
    """Return the classifier of a checkpoint, in eval mode, on the CPU.

    Args:
        path: Path of a .ckpt file, or of a run's directory for its best checkpoint.
        trust_repo: Whether the code of a torch.hub repository that the checkpoint names may run.

    Raises:
        UnfreezeError: If there is no checkpoint, it is not one of this project, or its repository is not trusted.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = RunDirectory(file).best
    checkpoint = read_checkpoint(file)
    record = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(record, dict) or record.get("schema") != CHECKPOINT_SCHEMA:
        raise UnfreezeError(
            f"{file}: not a checkpoint of this version of unfreeze (schema {CHECKPOINT_SCHEMA}); want one of a run"
        )
    state = entries_under(checkpoint["state_dict"], NETWORK_PREFIX)
    model = record["classifier"]["model"]
    if model["source"] == "hub" and not trust_repo:
        raise UntrustedRepoError(
            f"{file}: its network is {model['name']} of the repository {model['repo']}, whose code would run; if you "
            "trust it, type --trust-repo, or in a script trust_repo=True",
            repo=model["repo"],
        )
    return rebuild_classifier(record["classifier"], state, trust_repo=trust_repo)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, without running code in it.

    Raises:
        UnfreezeError: If the file is missing or can't be read.
    """
    check_checkpoint(file)
    try:
        content = load_plain(file)
    except UnfreezeError as error:
        raise UnfreezeError(f"{file}: can't be read as a checkpoint ({error})") from None
    if not isinstance(content, dict):
        raise UnfreezeError(f"{file}: holds {type(content).__name__}, not a checkpoint")
    return content
