"""Telling people and programs outside how a run goes: a command, a webhook, or whatever Apprise reaches."""

from orchestrator.notifications.notifier import Notifier, deliver
from orchestrator.notifications.rules import (
    USUAL_MOMENTS,
    Message,
    Moment,
    NotificationRule,
    Receiver,
    Subscription,
    Undelivered,
)
from orchestrator.notifications.stories import trial

__all__ = [
    "USUAL_MOMENTS",
    "Message",
    "Moment",
    "NotificationRule",
    "Notifier",
    "Receiver",
    "Subscription",
    "Undelivered",
    "deliver",
    "trial",
]
