"""A task that SmolLM2-135M-Instruct can do without a fine-tune, capitals of countries: plans and depth pruning with it.

    python -m tests.benchmarks.smollm2 --keep MODELS --methods linear
    python -m tests.benchmarks.smollm2_facts plan MODELS RUNS [NAME ...]
    python -m tests.benchmarks.smollm2_facts prune MODELS RUNS [OVERRIDE ...]

`plan` plans two small searches over both variants in MODELS (by greedy answers, and by the likelihood of the right
ones), carries them out and compares, as tests.benchmarks.plan does. `prune` searches which layers of the base can be
left out, and prints the front.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.searching.json_lines import whole_lines
from tests.benchmarks.plan import compared

TASKS = Path(__file__).parent / "smollm2_tasks"
# By continent: a wrong choice is a capital of the same one.
CAPITALS: Mapping[str, str] = {
    "Europe": "Albania:Tirana Austria:Vienna Belgium:Brussels Bulgaria:Sofia Croatia:Zagreb Denmark:Copenhagen "
    "Estonia:Tallinn Finland:Helsinki France:Paris Germany:Berlin Greece:Athens Hungary:Budapest Iceland:Reykjavik "
    "Ireland:Dublin Italy:Rome Latvia:Riga Lithuania:Vilnius Luxembourg:Luxembourg Malta:Valletta Norway:Oslo "
    "Poland:Warsaw Portugal:Lisbon Romania:Bucharest Russia:Moscow Serbia:Belgrade Slovakia:Bratislava "
    "Slovenia:Ljubljana Spain:Madrid Sweden:Stockholm Switzerland:Bern Ukraine:Kyiv Belarus:Minsk Cyprus:Nicosia "
    "Moldova:Chisinau Montenegro:Podgorica",
    "Asia": "Afghanistan:Kabul Armenia:Yerevan Azerbaijan:Baku Bangladesh:Dhaka Bhutan:Thimphu Cambodia:Phnom_Penh "
    "China:Beijing Georgia:Tbilisi India:New_Delhi Indonesia:Jakarta Iran:Tehran Iraq:Baghdad Israel:Jerusalem "
    "Japan:Tokyo Jordan:Amman Kazakhstan:Astana Kyrgyzstan:Bishkek Laos:Vientiane Lebanon:Beirut "
    "Malaysia:Kuala_Lumpur Mongolia:Ulaanbaatar Myanmar:Naypyidaw Nepal:Kathmandu North_Korea:Pyongyang Oman:Muscat "
    "Pakistan:Islamabad Qatar:Doha Saudi_Arabia:Riyadh South_Korea:Seoul Syria:Damascus Taiwan:Taipei "
    "Tajikistan:Dushanbe Thailand:Bangkok Turkey:Ankara Turkmenistan:Ashgabat Uzbekistan:Tashkent Vietnam:Hanoi "
    "Yemen:Sanaa",
    "Africa": "Algeria:Algiers Angola:Luanda Botswana:Gaborone Burkina_Faso:Ouagadougou Cameroon:Yaounde "
    "Chad:N'Djamena Egypt:Cairo Eritrea:Asmara Ethiopia:Addis_Ababa Gabon:Libreville Ghana:Accra Guinea:Conakry "
    "Kenya:Nairobi Liberia:Monrovia Libya:Tripoli Madagascar:Antananarivo Malawi:Lilongwe Mali:Bamako "
    "Mauritania:Nouakchott Morocco:Rabat Mozambique:Maputo Namibia:Windhoek Niger:Niamey Nigeria:Abuja "
    "Rwanda:Kigali Senegal:Dakar Sierra_Leone:Freetown Somalia:Mogadishu Sudan:Khartoum Togo:Lome Tunisia:Tunis "
    "Uganda:Kampala Zambia:Lusaka Zimbabwe:Harare",
    "America": "Argentina:Buenos_Aires Bahamas:Nassau Barbados:Bridgetown Brazil:Brasilia Canada:Ottawa Chile:Santiago "
    "Colombia:Bogota Costa_Rica:San_Jose Cuba:Havana Ecuador:Quito El_Salvador:San_Salvador Guyana:Georgetown "
    "Haiti:Port-au-Prince Honduras:Tegucigalpa Jamaica:Kingston Nicaragua:Managua Panama:Panama_City Paraguay:Asuncion "
    "Peru:Lima Suriname:Paramaribo Uruguay:Montevideo Venezuela:Caracas",
}
CHOICES = 3
PRUNED = {"search": (0, 24), "validation": (24, 72), "test": (72, 129)}
PLANS: Mapping[str, tuple[str, ...]] = {
    "full": ("optimizer=cmaes", "fitness=full"),
    "likelihood": ("optimizer=bo", "fitness=likelihood", "fitness.examples=24"),
}  # 12 genomes with 24 examples of the search split
FEW = {"search": (0, 24), "validation": (24, 48), "test": (48, 96)}


def examples() -> list[dict[str, object]]:
    """Each country with its capital, and CHOICES of the same continent among which it is; in the same order always."""
    draw, found = random.Random(135), []
    for pairs in CAPITALS.values():
        table = dict(pair.replace("_", " ").split(":") for pair in pairs.split())
        for country, capital in table.items():
            choices = [capital, *draw.sample([each for each in table.values() if each != capital], CHOICES - 1)]
            draw.shuffle(choices)
            found.append({"country": country, "capital": capital, "choices": choices, "at": choices.index(capital)})
    draw.shuffle(found)
    return found


def benchmark(task: str, metric: str, splits: Mapping[str, tuple[int, int]], runs: Path) -> list[str]:
    """The overrides for a task whose files are copied to `runs`."""
    tasks = runs / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    for file in (TASKS / f"{task}.yaml", TASKS / "scoring.py"):
        shutil.copyfile(file, tasks / file.name)
    (tasks / "capitals.jsonl").write_text("".join(json.dumps(each) + "\n" for each in examples()), encoding="utf-8")
    bounds = ",".join(f"{name}:{{start:{start},stop:{stop}}}" for name, (start, stop) in splits.items())
    return [
        "benchmark=lm_eval",
        f"benchmark.lm_eval.task={task}",
        f"benchmark.lm_eval.metric={metric}",
        f"benchmark.lm_eval.include_path={tasks}",
        f"benchmark.lm_eval.splits={{{bounds}}}",
        "benchmark.lm_eval.shuffle=null",
        "benchmark.lm_eval.complete_references=true",
        "threads=1",
        "tracker=none",
    ]


def compared_plan(name: str, models: Path, runs: Path) -> str:
    """A row of the table of predictions and runs; the plan by the device's figures beside it."""
    sources = [
        text
        for variant in ("one", "two")
        for text in (
            f"model.sources.{variant}.path={models / variant}",
            f"model.sources.{variant}.base={models / 'base'}",
        )
    ]
    given = [
        f"hydra.searchpath=[file://{TASKS / 'conf'}]",
        "model=smollm2_one+smollm2_two",
        *sources,
        *benchmark("capitals", "right", FEW, runs),
        *PLANS[name],
        "optimizer.population=6",
        "budget=12",
        "top=2",
        "audit_examples=24",
        "dtype=float32",
    ]
    figures = runs / f"figures_{name}.json"
    by_figures = [sys.executable, "-m", "evohydra.plan", "calibrate=false", f"json={figures}", *given]
    subprocess.run(by_figures, check=True, stdout=subprocess.DEVNULL)
    found = json.loads(figures.read_text())
    seconds, memory = found["cost"]["seconds"][0]["total"], found["memory"]["driver"]["total"]
    told = f"{seconds['likely']:.0f} ({seconds['low']:.0f} to {seconds['high']:.0f}) s, {memory / 1e6:.0f} MB"
    return f"{compared(f'smollm2 {name}', given)} by figures: {told}"


def prune(models: Path, runs: Path, given: Sequence[str]) -> str:
    """Search the layers that the base needs; the front on the search split and validation, as markdown."""
    run = runs / "prune"
    command = [
        *("model=local", f"model.sources.local.path={models / 'base'}", "merge=dfs_prune", "objective=path_length"),
        *("pick=shortest", "optimizer=nsga2", "optimizer.population=12", "budget=60", "fitness=full"),
        *("dtype=float32", "audit=none", "report=false", "baselines=null"),
        *benchmark("capitals_choice", "acc", PRUNED, runs),
        *given,
    ]
    subprocess.run([sys.executable, "-m", "evohydra", *command, f"hydra.run.dir={run}", "run=prune"], check=True)
    return front(run)


def front(run: Path) -> str:
    """The front of a run in this directory as markdown, the longest path first."""
    summary = json.loads((run / "summary.json").read_text())
    records = {each["index"]: each for each in whole_lines(run / "ledger.jsonl")}
    validated = {each["index"]: each["validation"] for each in summary["validation"]["candidates"]}
    tests = {summary["search"]["index"]: summary["test"]["winner"]}
    (source,) = summary["test"]["sources"].values()
    layers = {int(name.rpartition(".")[2]) for each in records.values() for name in each["genes"]}
    lines = ["| layers | left out | search | validation | test |", "|---|---|---|---|---|"]
    for each in sorted(summary["search"]["front"], key=lambda one: one["-hops"]):
        taken = {int(name.rpartition(".")[2]) for name in records[each["index"]]["genes"]}
        out = ", ".join(map(str, sorted(layers - taken))) or "nothing"
        found = tests.get(each["index"], source if out == "nothing" else None)
        told = f"{found['score']:.3f} ({found['low']:.3f} to {found['high']:.3f})" if found else ""
        known = validated.get(each["index"])
        known_as = "" if known is None else f"{known:.3f}"
        lines.append(f"| {-each['-hops']:.0f} | {out} | {each['score']:.2f} | {known_as} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "prune"])
    parser.add_argument("models", type=Path, help="what tests.benchmarks.smollm2 --keep has written")
    parser.add_argument("runs", type=Path, help="where runs are")
    parser.add_argument("given", nargs="*", help="names of plans, or overrides of the search")
    told = parser.parse_args()
    models, runs = told.models.resolve(), told.runs.resolve()
    if told.command == "prune":
        print(prune(models, runs, told.given))
    else:
        for name in told.given or PLANS:
            print(compared_plan(name, models, runs), flush=True)


if __name__ == "__main__":
    main()
