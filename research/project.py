"""Where the four notebooks work, and how they call nephros."""

import json
import os
import pathlib
import shutil
import subprocess

# The folder that the notebooks share; 01 makes it anew.
PROJECT = pathlib.Path(os.environ.get("NEPHROS_PROJECT", "kidneys")).resolve()

# The command: NEPHROS names it where it is not on the PATH.
NEPHROS = os.environ.get("NEPHROS") or shutil.which("nephros")


def nephros(*arguments, quiet=False):
    """Runs `nephros` in the project, shows what it prints, and gives it back.

    Progress and remarks go to stderr and are shown only when the command fails.
    """
    if NEPHROS is None:
        raise FileNotFoundError("nephros is not on the PATH; set NEPHROS to its path")
    command = [NEPHROS, *map(str, arguments)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {result.returncode}:\n{result.stderr}")
    if not quiet:
        print(result.stdout.rstrip())
    return result.stdout


def set_keys(file, **values):
    """Changes keys of a YAML file of the project in place; comments stay."""
    path = PROJECT / file
    lines = path.read_text().splitlines()
    for key, value in values.items():
        rows = [row for row, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
        if len(rows) != 1:
            raise KeyError(f"{file}: expected `{key}` once, found it {len(rows)} times")
        indent = lines[rows[0]][: len(lines[rows[0]]) - len(lines[rows[0]].lstrip())]
        lines[rows[0]] = f"{indent}{key}: {value}"
    path.write_text("\n".join(lines) + "\n")


def read_json(file):
    """A JSON file of the project."""
    return json.loads((PROJECT / file).read_text())
