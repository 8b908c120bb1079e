"""`flask tenants …`: the commands of `orchestrate` inside a Flask application.

Flask imports this module for every `flask` command, so it imports nothing of ours that is not needed to be listed.
"""

from __future__ import annotations

from orchestrator.flask.commands import tenants

__all__ = ["tenants"]
