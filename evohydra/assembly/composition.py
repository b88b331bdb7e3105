"""How Hydra finds conf/, and the plugin that makes `model=a+b+c` the composition of the files a, b and c."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.errors import CompactHydraException, ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evohydra.checks.libraries import install_command
from evohydra.files import Plain

# Plugins of Hydra that other packages bring.
OF_OTHERS = {
    "hydra/launcher": f"joblib and submitit_* come with {install_command('evohydra[launchers]')}",
    "hydra/sweeper": "others come with packages of their own, optuna with `pip install hydra-optuna-sweeper`, whose "
    "hydra.sweeper.direction has to be maximize: a run returns the winner's score",
}


# What is called otherwise here, by group and name.
MEANT = {
    ("format", "moe"): "merge=moe makes a mixture of experts, which format=plain writes",
    ("format", "mixtral"): "merge=moe makes a mixture of experts, which format=plain writes",
}


class JobError(CompactHydraException):
    """Why a job of a sweep ended; Hydra shows these without a traceback."""


def conf_dir() -> str:
    """conf/ inside the package (an installed wheel), or beside it (a checkout)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return str(inside if (inside / "config.yaml").is_file() else package.parent / "conf")


class PlusSource(ConfigSource):
    """Any config whose last path part holds a + is the defaults list of its parts."""

    @staticmethod
    def scheme() -> str:
        """The scheme of this source's search path entry."""
        return "plus"

    def available(self) -> bool:
        """It always is."""
        return True

    def is_group(self, config_path: str) -> bool:
        """It holds no groups of its own."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether the path's last part is a composition."""
        return "+" in config_path.rsplit("/", 1)[-1]

    def load_config(self, config_path: str) -> ConfigResult:
        """A config that consists of a defaults list alone."""
        path = self._normalize_file_name(config_path).removesuffix(".yaml")
        parts = [part for part in path.rsplit("/", 1)[-1].split("+") if part]
        if len(set(parts)) < len(parts):
            raise ConfigCompositionException(f"{path}: expected different parts, got one of them twice")
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{path}",
            config=OmegaConf.create({"defaults": parts}),
            header={"package": None},
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: compositions are not enumerated."""
        return []


class PlusSearchPath(SearchPathPlugin):
    """Puts the source on every search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the source."""
        search_path.append("evohydra", "plus://")


def register() -> None:
    """Make the plugin known to Hydra; once more does nothing."""
    Plugins.instance().register(PlusSource)
    Plugins.instance().register(PlusSearchPath)


def composed_before(directory: Path) -> tuple[dict[str, object], Path]:
    """The configuration that Hydra has left in a run's directory, and where the command was given.

    ValueError where there is none, or where it cannot be resolved any more.
    """
    found = [directory / ".hydra" / f"{name}.yaml" for name in ("config", "hydra")]
    for file in found:
        if not file.is_file():
            raise ValueError(f"expected Hydra's files of the run, got no {file}")
    try:
        config, settings = (cast(DictConfig, OmegaConf.load(file)) for file in found)
        config["run"] = directory.name  # elsewhere it is the time
        plain = cast(dict[str, object], OmegaConf.to_container(config, resolve=True))
        where = OmegaConf.select(settings, "hydra.runtime.cwd")
    except OmegaConfBaseException as error:
        raise ValueError(f"{found[0]}: {error}") from error
    return plain, Path(str(where))


def given_before(directory: Path) -> list[str]:
    """The overrides of the command in a run's directory, as Hydra has left them, and where else it looked for parts."""
    found = [directory / ".hydra" / f"{name}.yaml" for name in ("overrides", "hydra")]
    task, settings = (OmegaConf.load(file) if file.is_file() else OmegaConf.create() for file in found)
    of_hydra = OmegaConf.select(settings, "hydra.overrides.hydra") or []
    return [*map(str, task), *(text for text in of_hydra if text.startswith("hydra.searchpath="))]


def swept(settings: HydraConf) -> list[str]:
    """The overrides of a job of a multirun that its other jobs do not share, as far as the sweep's own file tells."""
    file = Path(settings.sweep.dir) / "multirun.yaml"
    given = OmegaConf.load(file) if file.is_file() else OmegaConf.create()
    params = OmegaConf.select(given, "hydra.sweeper.params") or {}
    tasks = [*(OmegaConf.select(given, "hydra.overrides.task") or []), *(f"{key}={params[key]}" for key in params)]
    keys = {each.key_or_group for each in OverridesParser.create().parse_overrides(tasks) if each.is_sweep_override()}
    return [text for text in settings.overrides.task if text.lstrip("+~").split("=")[0] in keys]


def composed(overrides: Sequence[str]) -> Plain:
    """The configuration of a command line, without Hydra's own part; ValueError, with what is known, for a wrong one.

    A program's own Hydra, if it has one, stays as it is.
    """
    register()
    with _apart():
        try:
            with initialize_config_dir(conf_dir(), version_base="1.3"):
                config = compose("config", overrides=list(overrides))
            return cast(Plain, OmegaConf.to_container(config, resolve=True))
        except (HydraException, OmegaConfBaseException) as error:
            hints = explain(list(overrides))
            raise ValueError("; ".join(hints) or str(error).splitlines()[0]) from error


def choices(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """What may be chosen of a group of conf/, in the places of `hydra.searchpath` among the overrides too."""
    register()
    searchpath = [text for text in overrides if text.startswith("hydra.searchpath=")]
    with _apart(), initialize_config_dir(conf_dir(), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, config_name="config", overrides=searchpath)


@contextmanager
def _apart() -> Iterator[None]:
    """Hydra as if nobody used it, and afterwards as it was."""
    before = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(before)


def is_hydras(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf says what is wrong, which is short and has no traceback."""
    return isinstance(error, HydraException | OmegaConfBaseException)


def explain(arguments: list[str]) -> list[str]:
    """For each override that names what does not exist: what the known names at that place are."""
    given = [argument for argument in arguments if not argument.startswith("-") and "=" in argument]
    try:
        overrides = OverridesParser.create().parse_overrides(given)
    except HydraException:
        return []
    searchpath = [text for text in given if text.startswith("hydra.searchpath=")]
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def options(group: str) -> list[str]:
            return loader.get_group_options(group, config_name="config", overrides=searchpath)

        unknown = [hint for override in overrides if (hint := _unknown_choice(override, options))]
        known = [each for each in overrides if _is_group(each) and _unknown_choice(each, options) is None]
        chosen = [each.input_line or "" for each in known if not each.is_sweep_override()]
        config = compose("config", [*searchpath, *chosen])
        open_groups = {_group(each) for each in overrides if _is_group(each)} - {
            _group(each) for each in known if not each.is_sweep_override()
        }
        asked = [each for each in overrides if not _is_group(each) and _group(each) not in open_groups]
        swept = [each for each in overrides if not _is_group(each) and _group(each) in open_groups]
        return [
            *unknown,
            *(hint for override in asked if (hint := _unknown_option(override, config))),
            *(hint for override in swept if (hint := _unknown_before_jobs(override, config))),
        ]


def _group(override: Override) -> str:
    """The group that an override chooses from, or in which an option is: `model`, of `model=a` and of `model.b=c`."""
    key = override.key_or_group.split("@")[0]
    return key if "/" in key else key.split(".")[0]


def _is_group(override: Override) -> bool:
    return (Path(conf_dir()) / override.key_or_group.split("@")[0]).is_dir()


def _unknown_before_jobs(override: Override, config: DictConfig) -> str | None:
    """How to give an option that only what a sweep chooses has: Hydra looks for it before it chooses."""
    if override.is_force_add() or _unknown_option(override, config) is None:
        return None
    return (
        f"{override.key_or_group}: in a sweep over {_group(override)}, Hydra looks for this option before any choice "
        f"is made. If the choices have it, write ++{override.input_line}, with ++: it then holds for each job"
    )


def _unknown_choice(override: Override, options: Callable[[str], list[str]]) -> str | None:
    """What the options of a group are, where `override` chooses one that is not known."""
    key = override.key_or_group.split("@")[0]
    if _is_group(override):
        wanted = [part for text in override.get_value_string().strip("[]").split(",") for part in text.split("+")]
        known = options(key)
        unknown = [part for part in wanted if part not in (*known, "null")]
        joined = override.get_value_string().split(",")
        twice = [name for text in joined for name in text.split("+") if text.split("+").count(name) > 1]
        if twice:
            return (
                f"{key}={override.get_value_string()}: {twice[0]} is named twice, which is one and the same. Two "
                f"models of your own need two files like conf/{key}/{twice[0]}.yaml, with names of their own, in a "
                "directory of yours: hydra.searchpath=[file:///my/conf]"
            )
        hint = f"; {MEANT[key, unknown[0]]}" if unknown and (key, unknown[0]) in MEANT else ""
        return f"unknown {key} {', '.join(unknown)}. Known: {', '.join(known)}{hint}" if unknown else None
    if key in OF_OTHERS:
        known, plugin = options(key), override.get_value_string()
        return None if plugin in known else f"unknown {key} {plugin}. Known: {', '.join(known)}; {OF_OTHERS[key]}"
    return None


def _unknown_option(override: Override, config: DictConfig) -> str | None:
    """What is known in the place of an option that `config` does not have."""
    key = override.key_or_group
    if key.startswith("hydra"):
        return None
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    while node is None and parent:  # the first of its parts that there is not
        parent, _, leaf = parent.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
    if isinstance(override.value(), list) and isinstance(OmegaConf.select(config, key), DictConfig):
        return f"{key}: expected a mapping or null, got a list; {key}=null is none at all"
    if override.is_add() or not isinstance(node, DictConfig):
        return None
    given, mapping = override.value(), OmegaConf.select(config, key)
    if isinstance(given, dict) and isinstance(mapping, DictConfig) and (new := [*set(given) - set(mapping)]):
        there = ", ".join(sorted(map(str, mapping)))
        return f"{key}: there is no {', '.join(sorted(map(str, new)))}, known are {there}; +{key}.NAME=VALUE adds one"
    known = sorted(map(str, node))  # also those without a value, which are not "in" the node
    if leaf in known:
        return None
    parts = {name: OmegaConf.select(node, name, throw_on_resolution_failure=False) for name in known}
    below = [f"{parent}.{name}.{leaf}" for name, part in parts.items() if isinstance(part, DictConfig) and leaf in part]
    close = [" or ".join(below)] if parent and below else difflib.get_close_matches(leaf, known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown option {key!r}{meant} Known {f'keys of {parent!r}' if parent else 'options'}: {', '.join(known)}"
