"""Options that several commands share; see `signatures`."""

from __future__ import annotations

from pathlib import Path

from hf_negmine.commands.signatures import Signature, option, parameters
from hf_negmine.commands.specs import folder, spec

DATA, NEGATIVES, TEACHER, OUTPUT, RUNNING = "Data", "Negatives", "Teacher", "Output", "Running"

TEACHERS = parameters("teachers", "resolve_teacher")["teacher"]

mining = Signature("mining", "config", "MiningConfig")

CORPUS = mining("corpus", metavar="PATH")
CORPUS_CONFIG = mining("corpus_config_name", "--corpus-config")
COLUMNS = [
    mining("query_column"),
    mining("positive_column"),
    mining("rows_format", metavar="NAME"),
    mining("corpus_column"),
]
METHOD = mining("method", "-m", **spec("select.methods", "parse_method"))
SAMPLER = mining("sampler", "-s", **spec("select.samplers", "parse_sampler"))
POSITIVE_SCORE = mining("positive_score")
CACHE_DIR = mining("cache_dir", metavar="DIR", callback=folder)
DEVICE = mining("device")

QUIET = option("quiet", bool, "Print only where the data went.", "-q", default=False)
JSON = option(
    "as_json", bool, "Print the result as one JSON object and nothing else, for scripts.", "--json", default=False
)
SWEEP = "What [cyan]hf-negmine sweep --output[/] has written (not .md)."
DEBUG = option("debug", bool, "Show the traceback when something fails.", default=False)
OVERWRITE = option("overwrite", bool, "Write into a folder with files that this command did not write.", default=False)
OUTPUT_FOLDER = option("output", Path, "Folder to write to.", "-o", metavar="DIR", callback=folder, default=...)
