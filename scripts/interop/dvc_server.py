"""Runs DVC commands for tests, each in a process forked from this one, which has imported DVC already.

Reads a JSON object a line, {"cwd": ..., "args": [...], "env": {...}}, and answers with one,
{"code": ..., "stdout": ..., "stderr": ...}. The end of its input ends it.
"""

import json
import os
import sys
import tempfile

# Nothing is sent anywhere, and no update is looked for.
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["CI"] = "1"

import dvc.cli
import dvc.commands.checkout
import dvc.commands.commit
import dvc.commands.dag
import dvc.commands.repro
import dvc.commands.status
import dvc.dependency.param
import dvc.repo
import dvc.repo.init
import dvc.repo.reproduce
import dvc.repo.status
import dvc.stage.cache
import networkx  # noqa: F401
import ruamel.yaml  # noqa: F401


def run(request, out, err):
    """The child's part: never returns."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 255
    try:
        os.environ.update(request.get("env", {}))
        os.chdir(request["cwd"])
        code = dvc.cli.main(request["args"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def answer(request):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            run(request, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "stdout": texts[0], "stderr": texts[1]}


def main():
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
