"""What a database refuses by itself: a trigger in front of a change, written for SQLite or for PostgreSQL.

Every migration may use it, so what it writes for one call never changes.
"""

from __future__ import annotations

from alembic import op


def only_add(table: str) -> None:
    """Refuse to change or delete rows of a table, and to empty it."""
    for action in ("UPDATE", "DELETE"):
        refuse(f"{table}_no_{action.lower()}", f"{action} ON {table}", "TRUE", f"{table} are only ever added")
    refuse_to_empty(table)


def refuse(name: str, event: str, condition: str, message: str) -> None:
    """Refuse an event ("DELETE ON entries") of a row that a condition holds for.

    The condition knows NEW and OLD and is SQLite's: `IS NOT` compares as `IS DISTINCT FROM`, and NULL is false.
    """
    if _is_sqlite():
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} WHEN {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END")
        return
    condition = condition.replace(" IS NOT ", " IS DISTINCT FROM ")
    row = "OLD" if event.startswith("DELETE") else "NEW"
    _make_function(name, f"IF {condition} THEN {_raise(message)} END IF; RETURN {row};")
    op.execute(f"CREATE TRIGGER {name} BEFORE {event} FOR EACH ROW EXECUTE FUNCTION {name}()")


def refuse_to_empty(table: str) -> None:
    """Refuse TRUNCATE, which is no DELETE to PostgreSQL, and which SQLite does not know."""
    if not _is_sqlite():
        name = f"{table}_no_truncate"
        _make_function(name, _raise(f"{table} are not deleted"))
        op.execute(f"CREATE TRIGGER {name} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {name}()")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _make_function(name: str, body: str) -> None:
    op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")


def _raise(message: str) -> str:
    return f"RAISE EXCEPTION '{message}' USING ERRCODE = 'integrity_constraint_violation';"
