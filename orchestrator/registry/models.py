"""The keys of tenants.yaml: what may be written where."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from orchestrator.notifications.rules import Moment
from orchestrator.registry.scalars import (
    Anything,
    Concurrency,
    Count,
    Day,
    Duration,
    EachTarget,
    Failures,
    Flag,
    Freezes,
    LabelName,
    LabelSelector,
    Name,
    Pause,
    Positive,
    Size,
    Status,
    Text,
    Texts,
    Windows,
)
from orchestrator.tenants import State, Transaction


class Strict(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TimeoutsEntry(Strict):
    """`timeouts`: how long one job may wait for each thing; `null` goes back to the built-in value."""

    connect: Duration | None = None
    lock: Duration | None = None
    statement: Duration | None = None
    tenant_lock: Duration | None = None
    job: Duration | None = None


class PasswordEntry(Strict):
    """`password: {command: […], ttl: 10m}`: a command that prints a short-lived password."""

    command: list[Text] = Field(min_length=1)
    ttl: Duration = 600.0


#: the ways to write a password, as pydantic tells them apart
PASSWORD_FORMS = ("as text", "by command")

Password: TypeAlias = Annotated[
    Annotated[Text, Tag(PASSWORD_FORMS[0])] | Annotated[PasswordEntry, Tag(PASSWORD_FORMS[1])],
    Discriminator(lambda value: PASSWORD_FORMS[not isinstance(value, str)]),
]


class Connection(Strict):
    """Where one database or schema is, and how to work in it."""

    url: Text | None = None
    schema_: Text | None = Field(default=None, alias="schema")
    search_path: list[Text] | None = None
    version_table: Text | None = None
    version_table_schema: Text | None = None
    role: Text | None = None
    connect_args: dict[str, Anything] | None = None
    timeouts: TimeoutsEntry | None = None
    password: Password | None = None
    transaction: Transaction | None = None
    alembic: Text | None = Field(default=None, description="the section of alembic.ini that holds the chain")
    app: Text | None = None
    bind: Text | None = None


def _empty_for_none(value: Any) -> Any:
    return {} if value is None else value


#: `core:` without anything below it means: as inherited
DatabaseEntry: TypeAlias = Annotated[
    Connection, BeforeValidator(_empty_for_none, json_schema_input_type=Connection | None)
]


class Defaults(Connection):
    """`defaults` and each of `profiles`: what tenants inherit."""

    labels: dict[LabelName, Text | None] | None = None
    databases: dict[Name, DatabaseEntry] | None = None
    #: checked when the tenant is built: placeholders may stand in it
    window: Texts | None = None


class TenantEntry(Defaults):
    """One tenant."""

    profile: Name | None = None
    state: State | None = None
    reason: Text | None = None
    owner: Text | None = None
    until: Day = None
    after: list[Name] | None = None
    shared: Flag | None = None


Tenant: TypeAlias = Annotated[TenantEntry, BeforeValidator(_empty_for_none, json_schema_input_type=TenantEntry | None)]


class ServerEntry(Strict):
    """One server's cap."""

    concurrency: Positive


class Source(Strict):
    """What every source has; each of its tenants gets its labels and its profile."""

    name: Text | None = None
    profile: Name | None = None
    labels: dict[LabelName, Text] = {}
    timeout: Duration = 30.0
    min: Count = 0
    allow_empty: Flag = False


class SqlSource(Source):
    """Tenants as rows of a query."""

    type: Literal["sql"]
    url: Text
    query: Text
    connect_args: dict[str, Anything] = {}


class SchemasSource(Source):
    """Tenants as the schemas of one database, or the databases of one server."""

    type: Literal["schemas"]
    url: Text
    match: Text
    connect_args: dict[str, Anything] = {}


class CommandSource(Source):
    """Tenants as JSON that a command prints."""

    type: Literal["command"]
    run: list[Text] = Field(min_length=1)


class HttpSource(Source):
    """Tenants as JSON from an HTTP service, page by page."""

    type: Literal["http"]
    url: Text
    headers: dict[Text, Text] = {}


class PythonSource(Source):
    """Tenants as a Python callable gives them."""

    type: Literal["python"]
    call: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]


class FlaskSource(Source):
    """Tenants of a Flask application: itself, a list of tenants, or its binds."""

    type: Literal["flask"]
    app: Text
    #: names, or `module:callable` that gives them inside the application's context
    tenants: Texts | None = None
    each: Literal["bind"] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> FlaskSource:
        if self.tenants is not None and self.each is not None:
            raise ValueError("`tenants` and `each` exclude each other; keep one")
        return self


AnySource: TypeAlias = Annotated[
    SqlSource | SchemasSource | CommandSource | HttpSource | PythonSource | FlaskSource, Field(discriminator="type")
]


class GateEntry(Strict):
    """What must hold before the next wave starts."""

    command: list[Text] | None = Field(default=None, min_length=1)
    sql: Text | None = None
    http: Text | None = None
    on: EachTarget | None = Field(default=None, description="of `sql`: each target that the wave brought up")
    url: Text | None = Field(default=None, description="of `sql`: one database")
    status: Status | None = Field(
        default=None, description="expected of an HTTP answer; any from 200 to 299 unless said"
    )
    path: Text | None = Field(default=None, description="path to a true value in the JSON of an HTTP answer")
    headers: dict[Text, Text] | None = None
    timeout: Duration | None = None
    interval: Duration | None = None
    count: Positive | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> GateEntry:
        if sum(kind is not None for kind in (self.command, self.sql, self.http)) != 1:
            raise ValueError("a gate is one of `command`, `sql` and `http`; keep one")
        return self


class WaveEntry(Strict):
    """One wave of a strategy."""

    name: Name
    size: Size | None = None
    selector: LabelSelector | None = None
    growth: Literal["exponential", "linear"] | None = None
    order_by: LabelName | None = None
    concurrency: Positive | None = None
    max_failures: Failures | None = None
    strict: Flag | None = None
    pause: Pause = None
    gate: GateEntry | None = None
    window: Windows | None = None


class RetriesEntry(Strict):
    """`retries`: when jobs whose fault may pass are tried again; an empty list means never."""

    busy: list[Duration] | None = Field(default=None, description="before each further try of a locked tenant")
    server: list[Duration] | None = Field(default=None, description="before each probe of a server that is down")
    lost: Count | None = Field(default=None, description="further tries of a job whose worker died")


class StrategyEntry(Strict):
    """A named way to roll out."""

    concurrency: Concurrency = None
    max_failures: Failures = 0
    retries: Annotated[RetriesEntry, BeforeValidator(_empty_for_none)] = RetriesEntry()
    waves: list[WaveEntry] = []
    strict: Flag | None = None
    order_by: LabelName | None = None
    transaction: Transaction | None = None
    window: Windows | None = None
    freeze: Freezes | None = None
    deadline: Duration | None = None
    sweep: Flag | None = None


Moments: TypeAlias = Annotated[
    list[Moment],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [moment.value for moment in Moment]},
                {"type": "array", "minItems": 1, "items": {"enum": [moment.value for moment in Moment]}},
            ]
        }
    ),
]


class NotificationEntry(Strict):
    """Who is told of what happens to runs: a command, a webhook, or an Apprise address."""

    on: Moments | None = None
    exec: list[Text] | None = Field(default=None, min_length=1, description="program and arguments; JSON on its input")
    webhook: Text | None = None
    apprise: Text | None = Field(default=None, description="an Apprise URL; needs the extra `notify`")
    headers: dict[Text, Text] = {}
    secret: Text | None = Field(default=None, description="key of the signature of a webhook's body")
    timeout: Duration = 10.0

    @model_validator(mode="after")
    def _one_kind(self) -> NotificationEntry:
        if sum(kind is not None for kind in (self.exec, self.webhook, self.apprise)) != 1:
            raise ValueError("a notification is one of `exec`, `webhook` and `apprise`; keep one")
        if self.webhook is None and (self.headers or self.secret is not None):
            raise ValueError("`headers` and `secret` belong to a `webhook`; remove them")
        return self


class RegistryFile(Strict):
    """tenants.yaml: the tenants of one project, and how to roll out to them."""

    version: Literal[1]
    project: Text | None = None
    environment: Text = "default"
    protected: Flag = False
    defaults: Annotated[Defaults, BeforeValidator(_empty_for_none)] = Defaults()
    profiles: Annotated[dict[Name, Defaults], BeforeValidator(_empty_for_none)] = {}
    servers: Annotated[dict[Text, ServerEntry], BeforeValidator(_empty_for_none)] = {}
    tenants: Annotated[dict[Name, Tenant], BeforeValidator(_empty_for_none)] = {}
    sources: Annotated[list[AnySource], BeforeValidator(lambda value: [] if value is None else value)] = []
    strategies: Annotated[dict[Name, StrategyEntry], BeforeValidator(_empty_for_none)] = {}
    notifications: Annotated[
        list[NotificationEntry], BeforeValidator(lambda value: [] if value is None else value)
    ] = []
    ledger: Text | None = None
