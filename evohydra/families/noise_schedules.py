"""The schedule of noise that a diffusion model was trained with: of its scheduler, and of marks in single files."""

from collections.abc import Mapping
from pathlib import Path

from evohydra.families import pipeline_files as files
from evohydra.merging.checkpoints import SourceError, TensorSource

PREDICTION = "prediction_type"
ZERO_SNR = "rescale_betas_zero_snr"
# Keys of a scheduler's configuration that say what weights were trained for, not how pictures are drawn.
TRAINED_WITH = (
    PREDICTION,
    ZERO_SNR,
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
)
# Tensors by which single files say the first two; what they hold means nothing.
MARKS: Mapping[str, tuple[str, object]] = {"v_pred": (PREDICTION, "v_prediction"), "ztsnr": (ZERO_SNR, True)}
# The same in the header of a file, as training scripts write it (modelspec of Stability AI, kohya's ss_), in any case.
SAID: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "modelspec.prediction_type": ("v_pred", ("v", "v_prediction", "v-prediction")),
    "modelspec.predict_key": ("v_pred", ("v",)),
    "ss_v_parameterization": ("v_pred", ("true",)),
    "ss_zero_terminal_snr": ("ztsnr", ("true",)),
}
Schedule = Mapping[str, object]


def marks_in(header: Mapping[str, str]) -> set[str]:
    """The marks that stand for what the header of a file says in words."""
    return {mark for key, (mark, values) in SAID.items() if str(header.get(key, "")).lower() in values}


def schedules(folders: Mapping[str, Mapping[str, Path]], tensors: Mapping[str, TensorSource]) -> dict[str, Schedule]:
    """By name what each source was trained with, as far as its scheduler and marks in its file say."""
    found: dict[str, Schedule] = {}
    for name, parts in folders.items():
        config = files.scheduler_settings(parts["scheduler"]) if "scheduler" in parts else {}
        marks = dict(meaning for mark, meaning in MARKS.items() if mark in tensors[name].shapes)
        known = {key: config[key] for key in TRAINED_WITH if key in config} | marks
        if known:
            found[name] = {PREDICTION: "epsilon", ZERO_SNR: False, **known}
    return found


def check_same_schedules(known: Mapping[str, Schedule], owner: str | None, chosen: bool) -> tuple[str, ...]:
    """In a sentence each, in what sources differ from the schedule of `owner`, whose scheduler the merge has.

    Raises SourceError where they predict different things, or differ in more and the scheduler's owner is not `chosen`.
    """
    predictions = {name: schedule[PREDICTION] for name, schedule in known.items()}
    if len(set(predictions.values())) > 1:
        raise SourceError(f"prediction_type: expected the same of all sources, got {predictions}")
    ours = known.get(owner or "", {})
    sentences = []
    for name, theirs in known.items():
        differ = [key for key in TRAINED_WITH if key in ours and key in theirs and ours[key] != theirs[key]]
        if differ:
            told = ", ".join(f"{key} {theirs[key]!r} where {owner!r} has {ours[key]!r}" for key in differ)
            sentences.append(f"source {name!r} was trained with another schedule of noise: {told}")
    if sentences and not chosen:
        raise SourceError(
            f"{'; '.join(sentences)}. A merge has one: components.scheduler=SOURCE chooses whose it is, for all sources"
        )
    return tuple(f"{sentence}; all are scored with the latter" for sentence in sentences)


def changes(schedule: Schedule, folders: Mapping[str, Mapping[str, Path]], owner: str | None) -> dict[str, object]:
    """What has to change in the configuration of the owner's scheduler, for marks that say otherwise."""
    if owner is None:
        return {}
    stored = {PREDICTION: "epsilon", ZERO_SNR: False, **files.scheduler_settings(folders[owner]["scheduler"])}
    return {key: value for key, value in schedule.items() if stored.get(key) != value}


def marks_of(folder: Path) -> list[str]:
    """The marks of a single file whose pipeline has the scheduler in `folder`."""
    config = files.scheduler_settings(folder)
    return [mark for mark, (key, value) in MARKS.items() if config.get(key) == value]
