"""Writes the schema of MLflow's database, as MLflow's own migrations leave it.

Usage: mlflow_schema.py, with `mlflow-skinny==3.17.2 sqlalchemy alembic` from PyPI. Writes
crates/nephros-mlflow/src/store/schema.sql. Another version of MLflow may have another schema:
`KNOWN_REVISION` in crates/nephros-mlflow/src/store/schema.rs then changes with it.
"""

import pathlib
import sqlite3
import tempfile

import mlflow
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

TARGET = pathlib.Path(__file__).parents[2] / "crates/nephros-mlflow/src/store/schema.sql"


def migrated(path):
    engine = create_sqlalchemy_engine(f"sqlite:///{path}")
    _initialize_tables(engine)
    engine.dispose()
    return sqlite3.connect(path)


def statements(database):
    query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
    for (sql,) in database.execute(query):
        yield "\n".join(line.rstrip() for line in sql.splitlines()) + ";"


def main():
    with tempfile.TemporaryDirectory() as folder:
        database = migrated(pathlib.Path(folder) / "mlflow.db")
        (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        head = f"-- MLflow {mlflow.__version__}, revision {revision}; written by scripts/golden/mlflow_schema.py.\n"
        TARGET.write_text(head + "\n".join(statements(database)) + "\n")


main()
