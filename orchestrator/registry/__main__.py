"""`python -m orchestrator.registry` writes the JSON Schema that ships with the package; run it when models change."""

from orchestrator.registry.schemas import SCHEMA_FILE, schema_text

if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text())
